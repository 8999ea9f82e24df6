"""What every benchmark here does: check, then time in turns, then compare with the floor.

A test is one row of a group: one implementation, on one shape, in one place. It calls the fixture `measure`, which

1. runs ganfast's implementation (the first of `steps`) and the row's and gives both results to `check`;
2. times them in turns, A B A B, so that other work on the machine meets both; the ratio of the row is the median of
   the neighbours' ratios, with its quartiles. On a GPU the time is between two events around enough calls, or of a
   replay of a CUDA graph of them; the inputs rotate through more memory than the caches hold. A round in which other
   processes had the cores is taken again (waited). Memory that is freed stays with the process (keep_memory).
3. notes bytes, operations, the floor that follows from them and the calibration, time over floor, and peak memory. A
   row that is faster than can be is kept and marked: its work counts too much, or the calibration was disturbed.

"cpu", "cuda" (called from Python) and "graph" (captured in a CUDA graph) are the places; of the host's time "host"
(on a GPU) and "stub" (without one; host.py).
"""

import contextlib
import ctypes
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import calibrate
import host
import pytest
import torch
from parts import device_of

CACHES = {"cpu": 64 * 2**20, "cuda": 128 * 2**20}  # more than the last cache of today's chips
MOST_SETS = 32
LONG_ENOUGH = {"cpu": 5e-4, "cuda": 2e-3, "graph": 1e-3, "host": 5e-4, "stub": 2e-3}  # seconds of one measurement
ROUNDS = (7, 60)  # of a row, at least and at most
QUIET = 0.02  # of a round, at most, that its threads may wait for a core
PATIENCE = 3  # times as many rounds as wanted, at most, until enough are quiet
IMPOSSIBLE = 0.5  # a stream of reads is faster than a copy, but not twice: below this share the floor is wrong

_needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
PLACES = ["cpu", *(pytest.param(place, marks=_needs_cuda) for place in ("cuda", "graph"))]
HOST_PLACES = ["stub", pytest.param("host", marks=_needs_cuda)]
CALLED = {"stub": "cpu", "host": "cuda"}  # where a call from Python takes as long
full = pytest.mark.full


def in_full(*values):
    """Parameters that only the full set has: `make bench` leaves them out."""
    return [pytest.param(value, marks=full) for value in values]


def words(shape) -> str:
    """64x3x32x32, the id of a shape; 64x3x32x32-bf16, that of a case that holds one."""
    if isinstance(shape[0], int):
        return "x".join(map(str, shape))
    return "-".join(words(v) if isinstance(v, tuple) else v for v in shape)


# --- the floor --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What must be done at least: bytes (each input read once, each output written once), operations, launches."""

    bytes: float = 0.0
    operations: float = 0.0
    dtype: str = "fp32"  # whose matmul rate bounds the operations
    launches: int = 1

    def floor(self, calibration: dict, place: str) -> dict:
        """Seconds that each of the three takes at the measured rates."""
        return {
            "bytes": self.bytes / calibration["copy"],
            "operations": self.operations / calibration["matmul"][self.dtype],
            "launches": self.launches * calibration["launch"][CALLED.get(place, place)],
        }


def running(precision: str, place: str) -> str:
    """What products and convolutions of that precision run in under torch's settings: TF32 for fp32 on most GPUs.

    The faster one where the two kinds differ: cuDNN takes TF32 by default, cuBLAS does not.
    """
    kinds = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    tf32 = precision == "fp32" and place != "cpu" and any(kind.fp32_precision == "tf32" for kind in kinds)
    return "tf32" if tf32 else precision


# --- derivatives and results ------------------------------------------------------------------------------------------

PASSES = ["forward", "backward", "double"]


def passes(function: Callable, which: str) -> Callable:
    """function(*tensors) → tensor, as a step: alone, with its gradients, or with those of their squares, too.

    The result is the tuple of the output and the gradients; tensors that require no gradient are constants.
    """

    def forward(*args):
        with torch.no_grad():
            return (function(*args),)

    def derived(*args):
        leaves = [a.detach().requires_grad_() if _floating(a) else a for a in args]
        wanted = [a for a in leaves if _floating(a)]
        out = function(*leaves)
        first = torch.autograd.grad(out.sum(), wanted, create_graph=which == "double")
        if which == "backward":
            return out.detach(), *first
        return out.detach(), *torch.autograd.grad(sum(g.square().sum() for g in first), wanted)

    return forward if which == "forward" else derived


def _floating(a) -> bool:
    return isinstance(a, torch.Tensor) and a.is_floating_point()


def distance(got, wanted) -> float:
    """‖got − wanted‖/‖wanted‖ in fp64; NaN where either has one."""
    got, wanted = got.double(), wanted.double()
    return float((got - wanted).norm() / wanted.norm().clamp_min(1e-300))


def close(bound: float, wanted: Callable) -> Callable:
    """check(results, *args): each is within `bound` (relative, of norms) of those of wanted(*args in fp64)."""

    def check(results, *args):
        truth = wanted(*(a.double() if _floating(a) else a for a in args))
        assert len(results) == len(truth)
        errors = [distance(a, b) for a, b in zip(results, truth)]
        assert all(error <= bound for error in errors), f"relative errors {errors}, at most {bound} is right"

    return check


# --- time and memory --------------------------------------------------------------------------------------------------


def keep_memory() -> bool:
    """Tell glibc's malloc to keep what is freed, up to 32 MiB at a time; False where there is no glibc.

    An operator called alone in a loop otherwise gets all of its memory anew from the system or none, by the chance of
    what lies behind it, and is up to six times as slow in the one case as in the other. A whole training step gets 4 %
    of it anew (DCGAN-64, torch's allocator, counted page faults): memory that is there is what an operator meets.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    return bool(mallopt(mmap_threshold, 32 * 2**20) and mallopt(trim_threshold, 2**31 - 1))


class Timer:
    """Calling it measures: seconds of one call of step(*args). `result` is that of the first inputs."""

    def __init__(self, step: Callable, sets: list[tuple], place: str):
        self.place, self.device = place, device_of(place)
        self.turn, self.launched = 0, None

        def run():
            out = step(*sets[self.turn % len(sets)])
            self.turn += 1
            return out

        self.run, self.calls = run, 1
        self.result = step(*sets[0])
        run()
        alone = min(calibrate.seconds(run, self.device) for _ in range(2))
        self.inner = min(max(math.ceil(LONG_ENOUGH[place] / alone), 1), 1000)
        if place == "graph":
            self._capture(step, sets)

    def _capture(self, step, sets):
        """One graph of all calls; the first is that of the first inputs."""
        self.turn, self.calls = 0, self.inner
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step(*sets[0])
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.result = self.run()
            for _ in range(self.calls - 1):
                self.run()
        graph.replay()
        torch.cuda.synchronize()
        self.run, self.inner = graph.replay, 1

    def __call__(self) -> float:
        if self.place in CALLED:
            if self.launched is None:
                self.run()  # plans are made, and ways measured
                self.launched = host.operators(self.run) if self.place == "stub" else 0
            return host.seconds(self.run, self.place, self.inner, self.launched)
        return calibrate.seconds(self.run, self.device, self.inner) / self.calls


def input_sets(make: Callable, device: str) -> list[tuple]:
    """As many sets of inputs as fill more than the caches."""
    sets = [make()]
    held = sum(a.nbytes for a in sets[0] if isinstance(a, torch.Tensor))
    count = min(math.ceil(CACHES[device] / held), MOST_SETS) if held else 1
    return sets + [make() for _ in range(count - 1)]


def peak_memory(step: Callable, args: tuple, device: str) -> int:
    """Bytes that step(*args) holds at most beyond what was there: what torch allocates, results included."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        held = step(*args)
        del held
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        held = step(*args)
        del held
    now = most = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def quartiles(values) -> tuple[float, float, float]:
    values = sorted(values)
    if len(values) < 2:
        return (values[0],) * 3
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def waited() -> float:
    """Seconds that this process's threads, all together, were ready to run and had no core; 0 where Linux is not."""
    seconds = 0.0
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has ended
            seconds += int(thread.read_text().split()[1]) / 1e9
    return seconds


def in_turns(ours: Timer, theirs: Timer, budget: float) -> tuple[list, list, float]:
    """Times of both, taken in turns, each first in half of the rounds; and the share of these that were not quiet."""
    once = max((ours() * ours.inner * ours.calls) + (theirs() * theirs.inner * theirs.calls), 1e-9)
    rounds = min(max(int(budget / once), ROUNDS[0]), ROUNDS[1])
    taken = []  # (share of its time that a round waited, ours, theirs)
    while len(taken) < PATIENCE * rounds and sum(wait <= QUIET for wait, *_ in taken) < rounds:
        times, start, before = [0.0, 0.0], time.perf_counter(), waited()
        for which in (0, 1) if len(taken) % 2 else (1, 0):
            times[which] = (ours, theirs)[which]()
        taken.append(((waited() - before) / (time.perf_counter() - start), *times))
    waits, a, b = map(list, zip(*sorted(taken, key=lambda one: one[0])[:rounds]))
    return a, b, sum(wait > QUIET for wait in waits) / rounds


def beside_floor(seconds: float, work: Work, place: str, calibration: dict) -> dict:
    """floor, limit and over_floor of a row, and whether it is impossible: nothing can be as fast as that."""
    parts = work.floor(calibration, place)
    limit = max(parts, key=parts.get)
    over = seconds / parts[limit]
    assert over > 0, f"{seconds} s over a floor of {parts[limit]} s"  # and no NaN
    return {"floor": parts[limit], "limit": limit, "over_floor": over, "impossible": over <= IMPOSSIBLE}


def row_of(times: list, ours: list, disturbed: float, work: Work, memory: int) -> dict:
    """What is noted of a row, without its floor."""
    low, median, high = quartiles(times)
    ratio_low, ratio, ratio_high = quartiles(t / o for t, o in zip(times, ours))
    return {
        "seconds": median, "quartiles": [low, high], "rounds": len(times), "disturbed": disturbed,
        "ratio": ratio, "ratio_quartiles": [ratio_low, ratio_high], **asdict(work), "peak_memory": memory,
    }  # fmt: skip


def with_floor(row: dict, calibration: dict) -> dict:
    """A noted row beside the floor of another calibration."""
    work = Work(**{field.name: row[field.name] for field in fields(Work)})
    return row | beside_floor(row["seconds"], work, row["place"], calibration)


class Steps:
    """steps() → (losses,): a training step of make(*args); `history` has the losses of the first three."""

    def __init__(self, make: Callable, *args):
        self.make, self.args, self.update = make, args, None

    def __call__(self):
        if self.update is None:
            self.update = self.make(*self.args)
            self.history = torch.stack([self.update() for _ in range(3)]).double()
        return (self.update(),)
