"""The way that a critic takes: the same gradients on each, measured once, and nothing left of the trial."""

import random

import pytest
import torch
from penalty.truth import distance, grads
from torch import nn

from ganfast import penalty
from ganfast.ops import _tuning
from ganfast.penalty import plan


def curved():
    torch.manual_seed(0)
    first = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, padding=1))  # buffers that a call changes
    layers = [first, nn.GroupNorm(2, 4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 16, 1)]
    return nn.Sequential(*layers).double()


@pytest.fixture
def prefer(monkeypatch):
    """prefer(name) → calls: that way is measured to be faster."""

    def prefer(name):
        calls = []

        def choose(key, candidates, device, by_host=False):
            for way in candidates.values():
                way()
                torch.rand(3), random.random()
            calls.append(list(candidates))
            return next(n for n in candidates if n.startswith(name) and ("," in name) == ("," in n))

        monkeypatch.setattr(_tuning, "choose", choose)
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


WAYS = {
    of_step: ["merged, channels_last", "merged", "autograd"],
    of_penalty: ["sweeps, channels_last", "sweeps", "autograd"],
}


@pytest.mark.parametrize("of", WAYS)
@pytest.mark.parametrize("way", range(3))
def test_all_ways_are_the_same(of, way, prefer):
    plain, chosen = curved().eval(), curved().eval()  # spectral norm moves its vectors at each call
    calls = prefer("autograd")
    wanted = of(plain, scale=3.0)
    assert calls == [WAYS[of]]
    calls = prefer(WAYS[of][way])
    torch.testing.assert_close(of(chosen, scale=3.0), wanted, rtol=1e-10, atol=1e-12)
    assert distance(grads(chosen), grads(plain)) < 1e-10
    of(chosen)
    assert calls == [WAYS[of]]  # once for each shape
    of(chosen.train())
    assert calls == [WAYS[of]] * 2


@pytest.mark.parametrize("of", WAYS)
def test_a_trial_leaves_no_trace(of, prefer):
    plain, measured = curved(), curved()
    prefer(WAYS[of][1])
    of(plain), of(measured)
    state = {k: v.clone() for k, v in plain.state_dict().items()}
    measured.load_state_dict(state)
    plan.forget(measured)
    for critic in (plain, measured):
        for p in critic.parameters():
            p.grad = torch.ones_like(p)
    kept, numbers = torch.get_rng_state(), random.getstate()
    of(plain), of(measured)
    assert torch.equal(torch.get_rng_state(), kept) and random.getstate() == numbers
    for a, b in zip(plain.buffers(), measured.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert distance(grads(measured), grads(plain)) < 1e-10


@pytest.mark.parametrize("of", WAYS)
def test_buffers_come_back_where_a_trial_fails(of, monkeypatch):
    critic = curved()
    before = [b.clone() for b in critic.buffers()]

    def fails(key, candidates, device, by_host=False):
        candidates["autograd"]()
        raise torch.OutOfMemoryError("not enough")

    monkeypatch.setattr(_tuning, "choose", fails)
    with pytest.raises(torch.OutOfMemoryError):
        of(critic)
    for a, b in zip(critic.buffers(), before, strict=True):
        assert torch.equal(a, b)


def test_nothing_is_measured_where_bits_count(prefer):
    calls = prefer("autograd")
    torch.use_deterministic_algorithms(True)
    try:
        of_step(curved())
    finally:
        torch.use_deterministic_algorithms(False)
    assert calls == []


class Lists(nn.Module):
    """Notes things in a list, a dict and numbers."""

    def __init__(self):
        super().__init__()
        self.f, self.seen, self.by_name, self.calls = nn.Linear(48, 1), [], {}, 0

    def forward(self, x):
        self.calls += 1
        self.seen.append(self.calls)
        self.by_name[self.calls] = self.calls
        return self.f(x.flatten(1))


def test_what_a_trial_writes_is_taken_back(prefer):
    prefer("sweeps")
    critic = Lists().double()
    of_step(critic)
    assert (critic.seen, critic.by_name, critic.calls) == ([1, 2, 3], {1: 1, 2: 2, 3: 3}, 3)


def test_a_part_without_a_rule_is_modelled_to_lose():
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 4), nn.PReLU(), nn.Linear(4, 1)).double()
    torch.use_deterministic_algorithms(True)
    try:
        of_penalty(critic), of_penalty(flat := critic[:3].append(nn.ReLU()))
    finally:
        torch.use_deterministic_algorithms(False)
    assert [p.way for c in (critic, flat) for p in plan._PLANS[c].values()] == ["autograd", "sweeps"]


def test_what_explain_says():
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.Flatten(), nn.Linear(16, 1))
    before = {k: v.clone() for k, v in critic.state_dict().items()}
    said = str(penalty.explain(critic, torch.randn(5, 3, 4, 4)))
    assert all(torch.equal(v, before[k]) for k, v in critic.state_dict().items())
    for words in ("BatchNorm", "curved", "double backward alone", "2 convolutions and products", "not merged: prelu"):
        assert words in said, said
    said = str(penalty.explain(nn.Sequential(nn.Flatten(), nn.Linear(48, 1)), torch.randn(5, 3, 4, 4)))
    assert "merged" in said and "not merged" not in said
    assert "takes torch's double backward: it keeps" in str(penalty.explain(Keeps(), torch.randn(5, 48)))


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(48, 1)

    def forward(self, x):
        self.h = self.f(x)
        return self.h
