"""Which modules mix the samples of a batch, and who must know it."""

import copy

import pytest
import torch
from torch import nn

from ganfast import fuse, penalty
from ganfast import nn as gnn
from ganfast.penalty.plan import _PLANS
from ganfast.penalty.rules import REGISTERED, LinearMap
from ganfast.recipes.base import scores


class Centred(nn.Module):
    """x minus the batch's mean."""

    mixes_samples = True

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Declared(nn.Module):
    """One that is made of layers that do not mix."""

    mixes_samples = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(x)


def critic(*layers):
    return nn.Sequential(nn.Linear(6, 6), *layers, nn.Linear(layers[0](torch.randn(4, 6)).shape[1], 1))


def evaluated(module):
    return module.eval()


MIXING = {
    "batch norm": lambda: nn.BatchNorm1d(6),
    "batch norm without running statistics": lambda: evaluated(nn.BatchNorm1d(6, track_running_stats=False)),
    "synchronised": lambda: gnn.SyncBatchNorm(6),
    "minibatch discrimination": lambda: gnn.MinibatchDiscrimination(6, 3, 2),
    "minibatch stddev": lambda: nn.Sequential(nn.Unflatten(1, (6, 1, 1)), gnn.MinibatchStddev(), nn.Flatten()),
    "says so": Centred,
}
APART = {
    "batch norm in evaluation": lambda: evaluated(nn.BatchNorm1d(6)),
    "layer norm": lambda: nn.LayerNorm(6),
    "an activation": nn.ReLU,
}


@pytest.mark.parametrize("name", [*MIXING, *APART])
def test_a_sample_depends_on_its_batch_or_not(name):
    module = critic((MIXING | APART)[name]())
    x, others = torch.randn(2, 4, 6)
    with torch.no_grad():
        alone, together = module(x), module(torch.cat([x, others]))[:4]
    assert gnn.mixes_samples(module) == (name in MIXING) == (not torch.allclose(alone, together, atol=1e-5))


def test_fused_layers_mix_as_those_they_come_from():
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64, 1))
    fused = copy.deepcopy(net)
    fuse(fused)
    assert gnn.mixes_samples(fused) and not gnn.mixes_samples(fused.eval())


@pytest.mark.parametrize("name", MIXING)
def test_recipes_score_real_and_fake_apart_where_samples_mix(name):
    module, (real, fake) = critic(MIXING[name]()), torch.randn(2, 4, 6)
    for got, wanted in zip(scores(module, real, fake), (module(real), module(fake))):
        torch.testing.assert_close(got, wanted)
    merged = torch.cat(scores(module, real, fake, merge=True))
    torch.testing.assert_close(merged, module(torch.cat([real, fake])))


@pytest.mark.parametrize("layer", [Centred, Declared])
def test_a_step_with_penalty_merges_no_critic_that_says_it_mixes(layer, monkeypatch):
    """Whatever rules its layers have: one by name that merges, or those of the calls within."""
    if layer is Centred:
        monkeypatch.setitem(REGISTERED, Centred, LinearMap)
    module = critic(layer()).double()
    real, fake = torch.randn(2, 4, 6, dtype=torch.float64)
    found = penalty.wgan_gp_step(module, real, fake, strict=True)
    assert [plan.way for plan in _PLANS[module].values()] == ["sweeps"]
    torch.testing.assert_close(found.wasserstein, (module(real).mean() - module(fake).mean()).detach())
