"""The measured choice: which of several ways to compute the same thing is fastest here, timed once and remembered.

A choice belongs to a key (operator, shapes, dtypes, layouts) on one device under one set of versions. It is kept in
memory and in $GANFAST_CACHE/tuning.json (by default ~/.cache/ganfast), which is read again and replaced as a whole for
each new choice, so that processes side by side lose nothing but a race for the same key. The file is a cache: damaged
or not writable it costs time, never a result, and is told of once.

    {environment: {key: {"choice": name, "microseconds": {name: median}, "failed": {name: why}}}}
"""

import contextlib
import functools
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ganfast.files import cache_folder, replacing

REPEATS = 5
_known: dict[tuple[str, tuple], str] = {}  # (environment, key) → choice
measured: list[float] = []  # seconds that each choice of this process took


_graphs = [0]  # how deep the process is in for_graph()


@contextlib.contextmanager
def for_graph():
    """Inside, operators choose as in a captured CUDA graph, where the host's time is free: for a capture's warm-up."""
    _graphs[0] += 1
    try:
        yield
    finally:
        _graphs[0] -= 1


def in_graph(device: torch.device) -> bool:
    """Whether what is called now is captured in a CUDA graph, or is the warm-up of what will be."""
    return _graphs[0] > 0 or (device.type == "cuda" and torch.cuda.is_current_stream_capturing())


def choose(key: tuple, candidates: dict[str, Callable], device: torch.device, by_host: bool = False) -> str:
    """The name of the fastest candidate: by the device's time, or by_host by the longer of host's and device's.

    The first is the one to fall back on: nothing is measured while a CUDA graph is captured or torch.compile traces.
    A candidate that fails loses and is written down with its reason; where one wanted memory, nothing is remembered.
    Of one candidate nothing is measured either.

    Candidates are called without arguments, several times, and must have no effect but their result.
    """
    if len(candidates) == 1 or torch.get_deterministic_debug_mode() == 2:  # of use_deterministic_algorithms(True)
        return next(iter(candidates))
    place = environment(device)
    key = (*key, "by host") if by_host else key
    choice = _known.get((place, key))
    if choice in candidates:
        return choice
    row = _read().get(place, {}).get(str(key))
    if row is None or row["choice"] not in candidates:
        if not_now(device):
            return next(iter(candidates))
        began = time.perf_counter()
        row = measure(candidates, device, by_host)
        measured.append(time.perf_counter() - began)
        if row.pop("memory", False):
            return row["choice"]
        _keep(place, str(key), row)
    _known[place, key] = row["choice"]
    return row["choice"]


def key_of(op: str, args) -> tuple:
    """The key of a call: tensors by dtype, shape and strides, the rest by value."""
    return op, *map(_describe, args)


def _describe(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch."), tuple(value.shape), value.stride()
    return tuple(value) if isinstance(value, list) else value


@functools.cache
def environment(device: torch.device) -> str:
    """The device's name and the versions that its timings depend on."""
    from importlib.metadata import PackageNotFoundError, version

    from ganfast import __version__

    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "none"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, torch {torch.__version__}, triton {triton}, ganfast {__version__}"


def not_now(device) -> bool:
    if device.type == "meta" or torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return True  # a mode, such as torch.utils.flop_counter's, takes time for each operator in Python
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(candidates: dict[str, Callable], device: torch.device, by_host: bool = False) -> dict:
    """Time each candidate in turns, after one call that may compile: the medians and the fastest.

    One that took more than twice as long as another in the first round is not timed again.
    "memory" is there where one could not run for want of it.
    """
    seconds = {name: [] for name in candidates}
    failed, wants_memory = {}, False
    first = next(iter(candidates))
    for repeat in range(-1, REPEATS):
        for name, candidate in candidates.items():
            if name in failed or _is_lost(name, seconds):
                continue
            try:
                taken = _time(candidate, device, by_host) if repeat >= 0 else candidate()
            except Exception as error:
                if name == first:
                    raise
                wants_memory |= isinstance(error, torch.OutOfMemoryError)
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                continue
            if repeat >= 0:
                seconds[name].append(taken)
    medians = {name: round(statistics.median(s) * 1e6, 1) for name, s in seconds.items() if name not in failed}
    row = {"choice": min(medians, key=medians.get), "microseconds": medians}
    row |= {"failed": failed} if failed else {}
    return row | {"memory": True} if wants_memory else row


def _is_lost(name, seconds) -> bool:
    """Whether a candidate took more than twice as long as another in the first round."""
    taken = [s[0] for s in seconds.values() if s]
    return bool(seconds[name]) and seconds[name][0] > 2 * min(taken)


CALLS = 10  # of one measurement on a GPU
AHEAD = 2_000_000  # cycles, about a millisecond, that a GPU waits at first while calls are queued behind


def _time(candidate, device, by_host) -> float:
    """Seconds of one call."""
    if device.type != "cuda":
        start = time.perf_counter()
        candidate()
        return time.perf_counter() - start
    with torch.cuda.device(device):
        return _time_of_host(candidate) if by_host else _time_of_device(candidate)


def _time_of_host(candidate) -> float:
    """Of calls one after another, until the last is done: the longer of the host's and the device's time."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        candidate()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / CALLS


def _time_of_device(candidate) -> float:
    """Between two events around calls that were queued while the device was kept waiting: the host's time is not in it.

    A call on an idle stream would take as long as Python does.
    """
    cycles = AHEAD
    while True:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(cycles)
        start.record()
        for _ in range(CALLS):
            candidate()
        end.record()
        ahead = not start.query()
        end.synchronize()
        if ahead or cycles > 100 * AHEAD:  # a candidate that waits for the device is never ahead
            return start.elapsed_time(end) / 1e3 / CALLS
        cycles *= 4


# --- the file ---------------------------------------------------------------------------------------------------------


def path() -> Path:
    return cache_folder() / "tuning.json"


def table() -> list[tuple]:
    """Rows (environment, key, choice, {name: microseconds}, {name: why it failed}) of the file."""
    return [
        (place, key, row["choice"], row["microseconds"], row.get("failed", {}))
        for place, rows in _read().items()
        for key, row in rows.items()
    ]


def _read() -> dict[str, dict]:
    """The file's content; nothing where there is none, or where it is damaged."""
    try:
        content = json.loads(path().read_text())
        for rows in content.values():
            for row in rows.values():
                if not isinstance(row["choice"], str) or row["choice"] not in row["microseconds"]:
                    raise ValueError("a row without its choice")
        return content
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _tell(f"{path()} cannot be read ({error}): what it held is measured anew.")
        return {}


def _keep(place, key, row) -> None:
    """Write the row into the file, which is replaced as a whole."""
    content = _read()
    content.setdefault(place, {})[key] = row
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, durable=False) as partial:
            partial.write_text(json.dumps(content, indent=1))
    except OSError as error:
        _tell(f"{file} cannot be written ({error.strerror}): choices last as long as this process.")


@functools.cache
def _tell(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)
