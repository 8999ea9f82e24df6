"""What went wrong while training, in one sentence that says what to do."""

import contextlib
import errno
import threading
import time
from collections.abc import Iterator

import torch

from ganfast import terminal
from ganfast.errors import InputError
from ganfast.training import checkpoint
from ganfast.training.options import TrainOptions
from ganfast.training.saving import Saver
from ganfast.training.state import RunState

ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "_ALLOC_FAILED")
LESS_MEMORY = "lower --batch, --width, --size or (data on the GPU) --gpu-data-gib, or give --precision bf16"


@contextlib.contextmanager
def explained(saver: Saver, state: RunState, options: TrainOptions) -> Iterator[None]:
    """While a run trains: a file that cannot be written and memory that is not there become ``InputError``; it and
    every other one is also written to log.txt, as far as that can be done."""
    try:
        with quiet_writers():
            yield
    except BaseException as error:
        if out_of_memory(error):
            reported = InputError(no_memory(saver, state, options))
        elif isinstance(error, InputError):
            reported = error
        elif isinstance(error, OSError):
            reported = InputError(not_written(saver, state, error))
        else:
            raise
        log(saver, reported, alone=reported is not error)
        if reported is error:
            raise
        raise reported from error


def log(saver: Saver, reported: InputError, alone: bool) -> None:
    """Into log.txt. Of several processes the first one's command line speaks; what befell another ``alone`` it says."""
    if saver.ranks.first:
        with contextlib.suppress(OSError), open(saver.run / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} Stopped: {reported}\n")
    elif alone:
        print(f"ganfast: process {saver.ranks.rank}: {reported}", file=terminal.Watched())


# -- files -------------------------------------------------------------------------------------------------------------


def not_written(saver: Saver, state: RunState, error: OSError) -> str:
    where, reason = error.filename or saver.run, error.strerror or error
    if not saver.run.is_dir():
        what = f"{saver.run} was deleted or moved while it was written to"
        try:
            saver.rescue(state)
        except OSError as again:
            return f"{what}, and cannot be created again ({again.strerror}): see to it, then start again."
        return f"{what}, and was created again: {saver.go_on()}."
    if error.errno in ROOM:
        remedy = "make room, then "
    elif error.errno in PERMISSION:
        remedy = "make it writable, then "
    else:
        remedy = "see to it, then "
    return f"{where} cannot be written ({reason}): {remedy}{saver.go_on()}."


@contextlib.contextmanager
def moved_explained(options: TrainOptions) -> Iterator[None]:
    """While the data of a run is opened."""
    try:
        yield
    except InputError as error:
        if not options.resume:
            raise
        raise InputError(
            f"{str(error).rstrip('.')}; {options.resume} was trained on it: say where it is (--data)."
        ) from None


@contextlib.contextmanager
def quiet_writers() -> Iterator[None]:
    """TensorBoard's thread prints its ``OSError`` although it hands it to the thread that writes."""
    before = threading.excepthook

    def hook(args):
        if not issubclass(args.exc_type, OSError):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


# -- memory ------------------------------------------------------------------------------------------------------------


def out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or one that it came of, is a lack of memory, as allocators of CPUs and GPUs say it."""
    if error is None:
        return False
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and any(word in str(error) for word in NO_MEMORY):
        return True
    return out_of_memory(error.__cause__ or error.__context__)


@contextlib.contextmanager
def room_explained() -> Iterator[None]:
    """While networks and data are brought into memory."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            "there is not enough memory for the networks and the data: lower --width or --size, or --gpu-data-gib "
            "where the data is on the GPU."
        ) from error


def no_memory(saver: Saver, state: RunState, options: TrainOptions) -> str:
    what = f"there is not enough memory on {state.device}"
    what += f" for a step of batch {options.batch}" if state.in_step else ""
    return f"{what}: {LESS_MEMORY}" + (f"; with more memory, {saver.go_on()}." if checkpoint.all_in(saver.run) else ".")
