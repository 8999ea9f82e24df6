"""A function that becomes a graph, on a tape (tests/tape.py): what is called when, and where."""

import pytest
import torch

from ganfast.errors import InputError
from ganfast.graphs import WARM_UP, Recorded
from ganfast.ops import _tuning


def test_warm_up_capture_and_replay(tape):
    """Warm-up and capture choose kernels as for a graph; the function is not called after the capture."""
    total, deep = torch.zeros(3), []

    def function():
        deep.append(_tuning._graphs[0])
        return total.add_(1) * 2

    recorded = Recorded(function, torch.cuda.Stream())
    results = [recorded() for _ in range(WARM_UP + 3)]
    assert deep == [1] * (WARM_UP + 1) and _tuning._graphs[0] == 0
    assert total.tolist() == [WARM_UP + 3] * 3 and tape[0].replays == 3
    assert results[-1] is results[-2] and results[-1].tolist() == [2 * (WARM_UP + 3)] * 3


def test_it_runs_on_its_stream_between_what_the_current_one_does(tape, monkeypatch):
    """And is back on the current stream after a failure, too."""
    said = []

    class Stream:
        device = torch.device("cpu")

        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            said.append(f"{self.name} waits for {other.name}")

    class On:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            said.append(f"on {self.stream.name}")

        def __exit__(self, *error):
            said.append("back")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("current"))
    monkeypatch.setattr(torch.cuda, "stream", On)
    recorded = Recorded(lambda: said.append("function"), Stream("side"))
    around = ["side waits for current", "on side", "function", "back", "current waits for side"]
    recorded()
    assert said == around
    for _ in range(WARM_UP):
        recorded()
    assert said == around * (WARM_UP + 1)
    said.clear()

    def fails():
        raise RuntimeError("no")

    failing = Recorded(fails, Stream("side"))
    for kind in [RuntimeError] * WARM_UP + [InputError]:
        said.clear()
        with pytest.raises(kind, match="no"):
            failing()
        assert said == ["side waits for current", "on side", "back", "current waits for side"]
    assert failing.graph is None


def test_the_first_of_a_chain_of_errors_is_told(tape, monkeypatch):
    """Ending a capture that failed fails once more."""
    record = torch.cuda.graph

    class Graph:
        def __init__(self, *args, **options):
            self.inner = record(*args, **options)

        def __enter__(self):
            return self.inner.__enter__()

        def __exit__(self, *error):
            self.inner.__exit__(*error)
            raise RuntimeError("capture was invalidated")

    monkeypatch.setattr(torch.cuda, "graph", Graph)

    def function():
        raise RuntimeError("the reason\nand advice")

    recorded = Recorded(function, torch.cuda.Stream())
    recorded.to_warm = 0
    with pytest.raises(InputError, match=r"test_recorded\.py, line \d+: the reason\)$"):
        recorded()
