"""galaxy: the pictures that it makes its questions of, and Richardson and Lucy's way back."""

import math

import pytest
import torch

from ganfast.data.degradations import gaussian_blur
from ganfast.data.restoration import richardson_lucy
from ganfast.errors import InputError
from ganfast.recipes import RECIPES

GalaxyGAN = RECIPES["galaxy"]


def asked(recipe, x, seed=0):
    return recipe.question({"x": x}, torch.Generator().manual_seed(seed))


def test_pictures_are_a_stretch_of_flux():
    recipe = GalaxyGAN(stretch=20.0)
    x = torch.linspace(-1, 1, 9).view(1, 1, 3, 3)
    flux = recipe.flux(x)
    assert flux.min() == 0 and flux.max() == pytest.approx(1, rel=1e-5) and flux[0, 0, 1, 1] < 0.2  # faint is lifted
    torch.testing.assert_close(torch.asinh(20 * flux) / math.asinh(20), (x + 1) / 2)
    torch.testing.assert_close(recipe.picture(flux), x)
    assert recipe.picture(torch.tensor([-1.0, 2.0])).tolist() == pytest.approx([-1, 1])
    assert torch.equal(GalaxyGAN(stretch=0.0).flux(x), (x + 1) / 2)


def test_blur_and_noise_are_what_they_are_said_to_be():
    """A star's width at half its height, and the spread of an empty sky, each within its range."""
    star = torch.full((200, 1, 33, 33), -1.0)
    star[:, :, 16, 16] = 1.0
    quiet = GalaxyGAN(fwhm_min=2, fwhm_max=6, noise_min=0, noise_max=0)
    seen = asked(quiet, star)
    line = quiet.flux(seen["blurred"])[:, 0, 16]
    total = quiet.flux(seen["blurred"]).sum((1, 2, 3))
    torch.testing.assert_close(total, torch.ones(200), atol=1e-3, rtol=0)  # a blur loses no light
    variance = (line * (torch.arange(33) - 16.0) ** 2).sum(1) / line.sum(1)
    widths = variance.sqrt() * 2.3548
    assert 1.9 < widths.min() < 2.3 and 5.5 < widths.max() < 6 and abs(widths.mean() - 4) < 0.3
    torch.testing.assert_close(seen["sigma"] * 2.3548, widths, rtol=0.06, atol=0)
    grey = torch.zeros(100, 1, 32, 32)
    noisy = GalaxyGAN(noise_min=0.02, noise_max=0.06, stretch=0.0)
    sigma = noisy.flux(asked(noisy, grey)["blurred"]).flatten(1).std(1)
    assert 0.018 < sigma.min() < 0.025 and 0.055 < sigma.max() < 0.066 and abs(sigma.mean() - 0.04) < 0.004


def test_questions_are_drawn_by_the_seed():
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    one, other, third = (asked(GalaxyGAN(), x, seed)["blurred"] for seed in (0, 0, 1))
    assert torch.equal(one, other) and not torch.equal(one, third) and one.abs().max() <= 1


@pytest.mark.parametrize("steps", [1, 10])
def test_richardson_lucy_is_that_of_scikit_image(steps):
    """Apart from borders: here all is dark there."""
    restoration = pytest.importorskip("skimage.restoration", reason="needs scikit-image")
    flux = torch.zeros(2, 2, 64, 64)
    flux[:, :, 24:40, 24:40] = torch.rand(2, 2, 16, 16)
    sigma, radius = torch.tensor([0.8, 1.7]), 5
    seen = gaussian_blur(flux, sigma, radius)
    found = richardson_lucy(seen, sigma, radius, steps)
    point = torch.zeros(2, 1, 11, 11)
    point[:, :, 5, 5] = 1
    kernels = gaussian_blur(torch.nn.functional.pad(point, (9,) * 4), sigma, radius)[:, 0, 9:20, 9:20]
    for k in range(2):
        for channel in range(2):
            wanted = restoration.richardson_lucy(seen[k, channel].double().numpy(), kernels[k].double().numpy(), steps)
            torch.testing.assert_close(found[k, channel].double(), torch.from_numpy(wanted), atol=1e-5, rtol=1e-4)


def test_richardson_lucy_finds_what_was_blurred():
    recipe = GalaxyGAN(noise_min=0, noise_max=0, fwhm_min=3, fwhm_max=3, stretch=0.0)
    x = torch.full((2, 1, 32, 32), -0.9)
    x[:, :, 10:14, 20:23] = 0.8
    question = asked(recipe, x)
    found = recipe.trivial(question)
    errors = {name: (each - x).square().mean().item() for name, each in found.items()}
    assert list(errors) == ["input", "richardson-lucy-3", "richardson-lucy-10", "richardson-lucy-30"]
    assert errors["richardson-lucy-30"] < errors["richardson-lucy-10"] < errors["input"] / 2


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"fwhm_min": 0.0}, "fwhm_min must be above 0"),
        ({"fwhm_max": 1.0}, "fwhm_max must be at least --fwhm-min, 2.0"),
        ({"noise_min": -1.0}, "noise_min must be 0 or more"),
        ({"noise_max": 0.001}, "noise_max must be at least --noise-min, 0.01"),
        ({"stretch": -1.0}, "stretch must be 0 or more"),
    ],
)
def test_impossible_fields_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        GalaxyGAN(**fields)
    assert "direction" not in GalaxyGAN().options()
