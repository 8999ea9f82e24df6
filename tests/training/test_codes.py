"""The score of codes on a generator whose codes are known to do what they do."""

import functools
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ganfast.data import Images, Spec, open_dataset
from ganfast.metrics.lenet import fitted, normalise
from ganfast.recipes import DCGAN, Recipe, Trained
from ganfast.training import abilities, codes


class Shears(nn.Module):
    """c, u [B, 2] → the digits of class ``order[c]``, leaning with u₀, narrower with u₁."""

    def __init__(self, digits: torch.Tensor):
        super().__init__()
        self.digits = nn.Parameter(digits)  # [10, 8, 1, 16, 16]

    def forward(self, z, c, u):
        images = self.digits[c, (z[:, 0] * 100).long() % self.digits.shape[1]]
        theta = torch.zeros(len(z), 2, 3)
        theta[:, 0, 0], theta[:, 0, 1], theta[:, 1, 1] = 1 + 0.15 * u[:, 1], 0.2 * u[:, 0], 1
        places = F.affine_grid(theta, images.shape, align_corners=False)
        return F.grid_sample(images + 1, places, align_corners=False) - 1


@dataclass(frozen=True, kw_only=True)
class Known(Recipe):
    name = "known"
    columns = {"x": Images()}
    given = {"c": Spec("labels", (), tuple("0123456789")), "u": Spec("attributes", (2,))}
    latent_dim: int = 3

    def sample(self, nets, z, given):
        return nets["G"](z, given["c"], given["u"])


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits", size=16)


def known(digits, classes: list[int]) -> Trained:
    """Category k makes digits of ``classes[k]``."""
    bank = torch.stack([normalise(digits.samples[digits.labels == k][:8]) for k in classes])
    return Trained(Known(), {"x": Spec("images", digits.shape)}, {"G": Shears(bank)})


def test_codes_that_are_known(digits, monkeypatch):
    monkeypatch.setattr(codes, "EACH", 30)
    monkeypatch.setattr(codes, "SERIES", 16)
    monkeypatch.setattr(codes, "fitted", functools.partial(fitted, steps=100))
    report = codes.report(known(digits, [*range(1, 10), 0]), digits, progress=False)
    assert report.purity > 0.8 and report.matched > 0.8 and report.owned >= 0.8
    assert report.confusion[2][3] > 15 and sum(map(sum, report.confusion)) == 300
    lean, thin = report.codes
    assert lean.slant.correlation > 0.9 and 25 < lean.slant.range < 60 and abs(lean.width.range) < 0.5
    assert thin.width.correlation < -0.9 and thin.width.range < -2 and abs(thin.slant.range) < 8
    mixed = codes.report(known(digits, [0] * 5 + [1] * 5), digits, progress=False)
    assert mixed.purity > 0.8 and mixed.matched < 0.3 and mixed.owned == 0
    assert abilities.reports(known(digits, [0] * 10), digits)["codes"].matched < 0.2


def test_what_has_no_codes_of_its_own_or_no_labels_to_go_by(digits):
    images = {"x": Spec("images", digits.shape)}
    recipe = DCGAN(width=2, latent_dim=4)
    assert codes.report(Trained(recipe, images, {"G": recipe.networks(images)["G"]}), digits) is None
    unlabelled = type(digits)("digits", images=digits.samples)
    assert codes.report(known(digits, [*range(10)]), unlabelled) is None
