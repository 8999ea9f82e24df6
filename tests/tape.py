"""A CUDA graph on a CPU: a tape of the operators that a capture saw, run again by a replay."""

import contextlib
import importlib
from types import SimpleNamespace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from ganfast.graphs import captured
from ganfast.graphs.dry_run import DryRun, _storage


class Tape:
    """What a ``torch.cuda.CUDAGraph`` does: the same operators over the same memory; results are where they were."""

    def __init__(self, made):
        self.calls, self.generators, self.replays = [], [], 0
        made.append(self)

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def pool(self):
        return (0, 1)

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for func, args, kwargs, kept in self.calls:
            for old, new in zip(kept, tree_leaves(func(*args, **kwargs))):
                if isinstance(old, torch.Tensor) and _storage(old) != _storage(new):
                    old.detach().copy_(new)


class Recording(DryRun):
    """A capture records and does not run: what it wrote is put back, and what it made is no number until a replay."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.graph.calls.append((func, args, kwargs or {}, tree_leaves(result)))
        return result


@contextlib.contextmanager
def record(graph, stream, capture_error_mode, pool=None):
    recording = Recording(graph)
    recording._random_states()
    try:
        with recording:
            yield
    finally:
        for undo in recording._undo.values():
            undo()
        for *_, results in graph.calls:
            for t in results:
                if isinstance(t, torch.Tensor) and t.is_floating_point() and _storage(t) in recording._made:
                    t.detach().fill_(torch.nan)


class OnGPU(DryRun):
    """A dry run that takes the CPU for a GPU."""

    def problems(self):
        problems, self.on_gpu = super().problems(), True
        return problems


@pytest.fixture
def tape(monkeypatch):
    """``capture`` as on a GPU, with a tape for a graph: the tapes that were made."""
    stream = SimpleNamespace(device=torch.device("cpu"), wait_stream=lambda other: None)
    made = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Tape(made))
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: stream)
    monkeypatch.setattr(captured, "_stream", lambda values: stream)
    monkeypatch.setattr(captured, "DryRun", OnGPU)
    for name in ("adadelta", "adam", "adamax", "asgd", "nadam", "radam", "rmsprop", "rprop"):
        module = importlib.import_module(f"torch.optim.{name}")
        monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda supports_xla=True: ["cpu"])
    yield made
