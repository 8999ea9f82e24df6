"""Sweeps or torch's double backward: the same gradients either way, measured once, and nothing left of the trial."""

import pytest
import torch
from penalty.truth import distance, grads
from torch import nn

from ganfast import penalty
from ganfast.ops import _tuning
from ganfast.penalty import choice
from ganfast.penalty.program import program_of

WAYS = ["sweeps", "autograd"]


def curved():
    torch.manual_seed(0)
    first = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, padding=1))  # buffers that a call changes
    layers = [first, nn.GroupNorm(2, 4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 16, 1)]
    return nn.Sequential(*layers).double()


@pytest.fixture
def eager_gpu(monkeypatch):
    """prefer(name) → calls: an eager loop on a GPU, where that way is measured to be faster."""
    monkeypatch.setattr(choice, "host_counts", lambda device: True)

    def prefer(name):
        calls = []

        def measure(candidates, device, by_host=False):
            for way in candidates.values():
                way()
                torch.rand(3)
            calls.append(list(candidates))
            return {"choice": name, "microseconds": {}}

        monkeypatch.setattr(_tuning, "measure", measure)
        return calls

    return prefer


def batches():
    return torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def of_step(critic, **kwargs):
    real, fake = batches()
    epsilon = torch.linspace(0, 1, 5, dtype=torch.float64)
    return torch.stack(penalty.wgan_gp_step(critic, real, fake, eps=epsilon, **kwargs))


def of_penalty(critic, scale=1.0):
    real, fake = batches()
    found = penalty.gradient_penalty(critic, real, fake, eps=torch.linspace(0, 1, 5, dtype=torch.float64))
    (found * scale).backward()
    return found.detach()


@pytest.mark.parametrize("of", [of_step, of_penalty])
@pytest.mark.parametrize("way", WAYS)
def test_both_ways_are_the_same(of, way, eager_gpu):
    plain, chosen = curved(), curved()
    for critic in (plain, chosen):  # spectral norm moves its vectors at each call
        critic.eval()
    wanted = of(plain, scale=3.0)
    calls = eager_gpu(way)
    torch.testing.assert_close(of(chosen, scale=3.0), wanted, rtol=1e-10, atol=1e-12)
    assert distance(grads(chosen), grads(plain)) < 1e-10
    assert calls == [WAYS]
    of(chosen)
    assert calls == [WAYS]  # once for each shape
    of(chosen.train())
    assert calls == [WAYS] * 2


@pytest.mark.parametrize("of", [of_step, of_penalty])
def test_a_trial_leaves_no_trace(of, eager_gpu):
    plain, measured = curved(), curved()
    of(plain)
    eager_gpu("sweeps")
    kept = torch.get_rng_state()
    held = [torch.ones_like(p) for p in measured.parameters()]
    for p, grad in zip(measured.parameters(), held, strict=True):
        p.grad = grad.clone()
    of(measured)
    assert torch.equal(torch.get_rng_state(), kept)
    for a, b in zip(plain.buffers(), measured.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert distance(grads(measured), [grad + before for grad, before in zip(grads(plain), held, strict=True)]) < 1e-10


def test_buffers_come_back_where_a_trial_fails(monkeypatch, eager_gpu):
    critic = curved()
    before = [b.clone() for b in critic.buffers()]

    def fails(candidates, device, by_host=False):
        candidates["autograd"]()
        raise torch.OutOfMemoryError("not enough")

    monkeypatch.setattr(_tuning, "measure", fails)
    with pytest.raises(torch.OutOfMemoryError):
        of_step(critic)
    for a, b in zip(critic.buffers(), before, strict=True):
        assert torch.equal(a, b)


def test_nothing_is_measured_where_the_sweeps_win_or_bits_count(eager_gpu, monkeypatch):
    calls = eager_gpu("autograd")
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 1)).double()
    assert program_of(flat).flat
    of_step(flat)
    torch.use_deterministic_algorithms(True)
    try:
        of_step(curved())
    finally:
        torch.use_deterministic_algorithms(False)
    monkeypatch.setattr(choice, "host_counts", lambda device: False)  # a CUDA graph
    of_step(curved())
    assert calls == []
