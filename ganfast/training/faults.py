"""What went wrong while training, in one sentence that says what to do."""

import contextlib
import errno
import threading
import time
import traceback
from collections.abc import Iterator

import torch

from ganfast import terminal
from ganfast.data import Feed, Stream
from ganfast.errors import InputError
from ganfast.training import checkpoint, saving

ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "_ALLOC_FAILED")
LESS_MEMORY = "lower --batch, --width, --size or (data on the GPU) --gpu-data-gib, or give --precision bf16"


@contextlib.contextmanager
def explained(trainer) -> Iterator[None]:
    """While ``trainer`` trains: a file that cannot be written and memory that is not there become ``InputError``; it
    and every other one is also written to log.txt, as far as that can be done."""
    try:
        with quiet_writers():
            yield
    except BaseException as error:
        trainer.failed = True
        if out_of_memory(error):
            told = InputError(no_memory(trainer, error))
        elif isinstance(error, InputError):
            told = error
        elif isinstance(error, OSError):
            told = InputError(not_written(trainer, error))
        else:
            raise
        tell(trainer, told, alone=told is not error)
        if told is error:
            raise
        raise told from error


def tell(trainer, told: InputError, alone: bool) -> None:
    """Into log.txt. Of several processes the first one's command line speaks; what befell another ``alone`` it says."""
    if trainer.ranks.first:
        with contextlib.suppress(OSError), open(trainer.run / "log.txt", "a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} Stopped: {told}\n")
    elif alone:
        print(f"ganfast: process {trainer.ranks.rank}: {told}", file=terminal.Watched())


def go_on(trainer) -> str:
    """How a run that had to stop goes on, and from where."""
    saved = checkpoint.all_in(trainer.run)
    if not saved:
        return "start again (nothing had been saved yet)"
    return f"go on from {saved[-1].name} with: ganfast train {trainer.recipe.name} --resume {trainer.run}"


# -- files -------------------------------------------------------------------------------------------------------------


def not_written(trainer, error: OSError) -> str:
    where, reason = error.filename or trainer.run, error.strerror or error
    if not trainer.run.is_dir():
        what = f"{trainer.run} was deleted or moved while it was written to"
        try:
            saving.rescue(trainer)
        except OSError as again:
            return f"{what}, and cannot be made anew ({again.strerror}): see to it, then start again."
        return f"{what}, and was made anew: {go_on(trainer)}."
    if error.errno in ROOM:
        remedy = "make room, then "
    elif error.errno in PERMISSION:
        remedy = "make it writable, then "
    else:
        remedy = "see to it, then "
    return f"{where} cannot be written ({reason}): {remedy}{go_on(trainer)}."


@contextlib.contextmanager
def moved_explained(options) -> Iterator[None]:
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


def let_go(error: BaseException | None) -> None:
    """Free what the frames of ``error`` hold: the activations of the step that failed."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


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


def no_memory(trainer, error: BaseException) -> str:
    """Says the largest batch that fits, which it tries."""
    let_go(error)
    batch, advice = trainer.options.batch, LESS_MEMORY
    what = f"there is not enough memory on {trainer.device}"
    if trainer.in_step:
        what += f" for a step of batch {batch}"
        fits = largest_batch(trainer)
        if fits:
            advice = f"batch {fits} fits, so give --batch {fits} (or somewhat less), or {advice}"
        elif fits == 0:
            advice = f"no smaller batch fits either, so {advice}"
    return f"{what}: {advice}" + (f"; with more memory, {go_on(trainer)}." if checkpoint.all_in(trainer.run) else ".")


def largest_batch(trainer) -> int | None:
    """The largest batch, to an eighth, that makes a step in the memory there is; 0: none does; None: it was not tried.

    A step over a feed of its own is run as it is, not as a CUDA graph, on networks that will not be used again.
    """
    if trainer.options.compile or (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None  # each size would be compiled; other ranks would have to try with this one
    low, high = 0, trainer.options.batch
    while high > 2 and (high - low > max(1, high // 8)):
        middle = max(2, high // 2 if low == 0 else (low + high) // 2)
        if fits(trainer, middle):
            low = middle
        else:
            high = middle
    return low


def fits(trainer, batch: int) -> bool:
    step, before = trainer.update, trainer.update.feed
    try:
        step.feed = Feed(Stream(trainer.data, batch, 0), trainer.recipe.d_steps, trainer.device, 0)
        step.feed.load()
        with trainer.precision.settings():
            step()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        return True
    except Exception as error:
        if not out_of_memory(error):
            raise
        let_go(error)
        return False
    finally:
        step.feed = before
        if trainer.device.type == "cuda":
            torch.cuda.empty_cache()
