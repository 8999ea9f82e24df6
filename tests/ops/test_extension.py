"""What the compiled extension is given: pointers of tensors that are still there when it reads them."""

import contextlib
import weakref
from types import SimpleNamespace

import pytest
import torch

from ganfast.ops import _backends, _extension, _registry


def strided(*shape, dtype=torch.float32):
    """A tensor with gaps: every backend takes a compact copy of it."""
    return torch.randn(*shape[:-1], 2 * shape[-1]).to(dtype)[..., ::2]


G, NORMS, EPSILON = strided(3, 100_000), strided(3).abs(), strided(3).sigmoid()
ROWS, OTHERS, SUMS = strided(5, 4, 3), strided(6, 4, 3), strided(5, 4)
LOGITS, FAKES, ONE = strided(9000), strided(70), torch.ones(())
Y, CHANNEL = strided(2, 4, 6, 6), strided(4).abs()
MOMENTS, NORM = strided(2, 4).abs(), (1e-5, "relu", 0.0)
PHI = (10.0, 1.0, False)
CALLS = {
    "batch_norm_act": (Y, CHANNEL, CHANNEL, None, None, None, 0.1, *NORM),
    "normalise_act": (Y, CHANNEL, CHANNEL, MOMENTS, *NORM),
    "batch_norm_act_backward": (Y + 1, Y, CHANNEL, CHANNEL, MOMENTS, True, *NORM),
    "gradient_penalty": (G, *PHI, True),
    "gradient_penalty_backward": (ONE, NORMS, G, NORMS, *PHI),
    "gradient_penalty_double_backward": (G.clone(), ONE, NORMS, G, NORMS, *PHI),
    "interpolate": (G, strided(3, 100_000), EPSILON),
    "norm_act": (Y, CHANNEL, strided(2, 4), None, 2, *NORM),
    "norm_act_backward": (Y + 1, Y, Y + 2, Y + 3, strided(2, 1, 4).abs(), False, 0, *NORM),
    "pairwise_l1": (ROWS, OTHERS),
    "pairwise_l1_backward": (SUMS, ROWS, OTHERS),
    "pairwise_l1_double_backward": (ROWS + 1, OTHERS + 1, SUMS, ROWS, OTHERS),
    "sigmoid_bce": (LOGITS, FAKES, 0.9, 0.1),
    "sigmoid_bce_backward": (ONE, LOGITS, FAKES, 0.9, 0.1),
    "sigmoid_bce_double_backward": (LOGITS + 1, FAKES + 1, ONE, LOGITS, FAKES, 0.9, 0.1),
}


class Half:
    """Stands in for one half of the extension: counts the pointers that it gets of tensors that are gone."""

    activations = "None relu"

    def __init__(self):
        self.owners = {}  # pointer → weak reference to the tensor that it was asked of last
        self.calls = self.gone = 0

    def __getattr__(self, name):
        if name.endswith("_workspace"):
            return lambda *sizes: 1000
        return self.called

    def called(self, *args):
        self.calls += 1
        self.gone += sum(self.owners[a]() is None for a in args if a in self.owners)


BACKENDS = [(name, b.name) for name in CALLS for b in _registry.OPS[name].backends if b.name in ("cpu", "cuda")]


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_a_tensor_outlives_the_call_that_takes_its_pointer(name, backend, monkeypatch):
    half, data_ptr = Half(), torch.Tensor.data_ptr

    def noted(x):
        pointer = data_ptr(x)
        if pointer:
            half.owners[pointer] = weakref.ref(x)
        return pointer

    monkeypatch.setattr(torch.Tensor, "data_ptr", noted)
    monkeypatch.setattr(_backends, "current_device", lambda: None)  # a CPU's index
    monkeypatch.setattr(_backends, "current_stream", lambda index: 0)
    monkeypatch.setattr(_extension, "_load", lambda: (SimpleNamespace(cpu=half, cuda=half), None))
    run = next(b.run for b in _registry.OPS[name].backends if b.name == backend)
    run(*CALLS[name])
    assert half.calls == 1 and len(half.owners) > 2 and half.gone == 0


@pytest.mark.parametrize("current", [0, 1])
def test_a_launch_takes_the_current_stream_of_its_tensors_device(current, monkeypatch):
    device, launches = [current], []

    @contextlib.contextmanager
    def entered(index):
        before, device[0] = device[0], index
        yield
        device[0] = before

    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(_backends, "current_device", lambda: device[0])
    monkeypatch.setattr(_backends, "current_stream", lambda index: 70 + index)
    _backends.on_stream(torch.device("cuda", 1), lambda *args: launches.append((device[0], args)), [5], [], [])
    with _backends.guard(torch.device("cuda", 1)):
        launches.append(device[0])
    assert launches == [(1, (5, 71)), 1] and device == [current]


@pytest.mark.gpu
def test_the_current_stream_is_torchs():
    stream = torch.cuda.Stream()
    for current in (torch.cuda.current_stream(), stream):
        with torch.cuda.stream(current):
            assert _backends.current_stream(_backends.current_device()) == current.cuda_stream
