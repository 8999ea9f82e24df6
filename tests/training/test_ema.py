import copy

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ganfast import nn as gnn
from ganfast.training.ema import Average


class Calls(TorchFunctionMode):
    """The names of Python's calls of torch."""

    def __init__(self, names):
        self.names = names

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_follows_the_recurrence_for_weights_and_statistics():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = copy.deepcopy(model)
    ema = Average(average, model, decay=0.9)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for step in range(1, 40):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(5, 3))
        ema.update(torch.tensor(float(step)))
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = (
                expected[name] * decay + value.double() * (1 - decay) if value.is_floating_point() else value
            )
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-5, atol=1e-5)
    assert average[1].num_batches_tracked == 39


def test_spectral_norms_vectors_stay_unit_vectors():
    """So that the average has the norm 1, whatever signs u and v had on the way."""
    model = gnn.spectral_norm(nn.Sequential(nn.Linear(30, 20)))
    average = copy.deepcopy(model)
    ema = Average(average, model, decay=0.9)
    for step in range(1, 40):
        model(torch.randn(5, 30))
        with torch.no_grad():
            for vector in model.buffers():
                vector.neg_()  # as a power iteration may
        ema.update(torch.tensor(float(step)))
    (weight,) = [layer.weight for layer in average.eval()]
    torch.testing.assert_close(torch.linalg.matrix_norm(weight, 2), torch.tensor(1.0), atol=0.05, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(average.buffers(), model.buffers()))


def test_every_tensor_has_the_bits_of_its_own_lerp():
    """Half types, too, whose weight is rounded to theirs; one call for all."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 5).half(), nn.Linear(5, 2).double())
    average = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    ema = Average(average, model, decay=0.9)
    step = torch.tensor(50.0)
    weight = 1 - ((1 + step) / (10 + step)).clamp(max=0.9)
    expected = [
        a.detach().lerp(m.detach(), weight.to(a.dtype)) for a, m in zip(average.parameters(), model.parameters())
    ]
    calls = []
    with Calls(calls):
        ema.update(step)
    assert all(torch.equal(a, e) for a, e in zip(average.parameters(), expected))
    assert sum("lerp" in name for name in calls) == 1
