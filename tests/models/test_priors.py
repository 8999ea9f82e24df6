"""The priors of adversarial autoencoders: they are what they say, by known moments and by their modes."""

import math

import pytest
import torch

from ganfast.models.priors import ACROSS, DISTANCE, LONG, PRIORS, REACH, THICKNESS, mixture, swiss_roll

Z = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))


def local(codes, mode, modes):
    """Along and across the petal of ``mode``."""
    turn = mode * (2 * math.pi / modes)
    x, y = codes.unbind(1)
    return x * turn.cos() + y * turn.sin() - DISTANCE, y * turn.cos() - x * turn.sin()


def test_a_petal_is_a_gaussian():
    mode = torch.arange(len(Z)) % 7
    along, across = local(mixture(Z, 7, mode), mode, 7)
    torch.testing.assert_close(along, LONG * Z[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(across, ACROSS * Z[:, 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("modes", [2, 10])
def test_z_alone_chooses_equally_likely_petals_and_stays_normal_in_them(modes):
    codes = mixture(Z, modes)
    mode = (torch.atan2(Z[:, 1], Z[:, 0]) / (2 * math.pi) % 1 * modes).long()  # sectors of the plane
    counts = torch.bincount(mode, minlength=modes)
    assert len(counts) == modes and (counts - len(Z) / modes).abs().max() < 5 * (len(Z) / modes) ** 0.5
    for numbers, scale in zip(local(codes, mode, modes), (LONG, ACROSS)):
        parts = numbers / scale
        for k in (1, 2, 3, 4):  # moments of N(0, 1): 0, 1, 0, 3
            expected = 0 if k % 2 else (1, 3)[k // 2 - 1]
            assert abs(parts.pow(k).mean() - expected) < 5 * parts.pow(k).std() / len(Z) ** 0.5
    assert local(mixture(0.01 * Z, modes), mode, modes)[0].abs().max() < 0.1  # small z: the middles


def test_the_roll_is_uniform_along_its_length_and_normal_across():
    x, y = swiss_roll(Z).unbind(1)
    place = (1 + torch.erf(Z[:, 0] / 2**0.5)) / 2
    radius = (x.square() + y.square()).sqrt()
    outer = place > 0.1  # where the radius cannot be negative
    torch.testing.assert_close(radius[outer], (REACH * place.sqrt() + THICKNESS * Z[:, 1])[outer])
    mode = torch.arange(len(Z)) % 10
    radius = (swiss_roll(Z, 10, mode).norm(dim=1) / REACH).square()  # the place, nearly
    for k in range(3, 10):
        assert abs(radius[mode == k].mean() - (k + 0.5) / 10) < 0.01


@pytest.mark.parametrize("prior", PRIORS)
def test_any_z_has_a_finite_code(prior):
    extremes = torch.tensor([[0.0, 0], [-1, -0.0], [1, -1e-30], [60, 60], [-60, 1e-30]])
    codes = PRIORS[prior](extremes, 10)
    assert codes.shape == extremes.shape and codes.isfinite().all()
