"""Each recipe learns something about real data, and describes itself."""

import dataclasses
import json

import pytest
import torch

from ganfast import Trainer
from ganfast.data import open_dataset
from ganfast.errors import InputError
from ganfast.recipes import RECIPES


def test_every_recipe_has_a_name_a_paper_and_explained_options():
    for name, recipe in RECIPES.items():
        assert recipe.name == name and "et al." in recipe.__doc__
        assert recipe.data_kind in ("images", "points")
        assert dataclasses.is_dataclass(recipe) and recipe() == recipe()


def test_dcgan_has_the_papers_defaults():
    recipe = DCGAN()
    assert (recipe.lr, recipe.beta1, recipe.latent_dim, recipe.d_steps) == (2e-4, 0.5, 100, 1)


@pytest.mark.parametrize("make", [lambda: GAN(loss="hinge"), lambda: WGANGP(architecture="stylegan")])
def test_a_word_that_an_option_does_not_have_is_refused(make):
    with pytest.raises(
        InputError, match=r"must be (non-saturating or minimax, got 'hinge'|dcgan or resnet, got 'styl)"
    ):
        make()


def test_wgan_clips_its_weights():
    recipe = WGAN(width=2, latent_dim=3)
    _, critic = recipe.networks((1, 16, 16))
    torch.nn.init.constant_(critic.layers[0].conv.bias, 3.0)
    recipe.constrain(critic)
    assert max(p.abs().max().item() for p in critic.parameters()) == pytest.approx(0.01)
    with pytest.raises(InputError, match="clip must be above 0"):
        WGAN(clip=0)


@pytest.mark.slow
@pytest.mark.parametrize("loss, left", [("non-saturating", 0.5), ("minimax", 0.9)])  # minimax saturates early on
def test_dcgan_comes_nearer_to_the_mean_digit(loss, left, tmp_path):
    data = open_dataset("digits", size=16)
    trainer = Trainer(DCGAN(width=16, latent_dim=16, loss=loss), data, batch=32, steps=150, outdir=str(tmp_path))
    mean = (data.samples.float() / 127.5 - 1).mean(0).permute(2, 0, 1)  # [1, 16, 16]

    def distance():
        return (trainer.generate(range(256)).mean(0) - mean).abs().mean().item()

    before = distance()
    trainer.train(progress=False)
    assert distance() < before * left


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe, steps",
    [
        (WGAN(width=16, latent_dim=16, d_steps=2, lr=5e-4), 120),
        (WGANGP(width=16, latent_dim=16, d_steps=2, lr=5e-4), 120),
        (WGANGP(width=8, latent_dim=16, architecture="resnet", d_steps=2, lr=5e-4), 60),
        (R3GAN(width=8, latent_dim=16, lr=1e-3), 120),
    ],
    ids=["wgan", "wgan-gp", "wgan-gp resnet", "r3gan"],
)
def test_other_games_come_nearer_to_the_mean_digit(recipe, steps, tmp_path):
    data = open_dataset("digits", size=16)
    trainer = Trainer(recipe, data, batch=32, steps=steps, outdir=str(tmp_path), ema_decay=0.9)
    mean = (data.samples.float() / 127.5 - 1).mean(0).permute(2, 0, 1)

    def distance():
        return (trainer.generate(range(256)).mean(0) - mean).abs().mean().item()

    before = distance()
    run = trainer.train(progress=False)
    assert distance() < before / 2
    row = json.loads((run / "stats.jsonl").read_text().splitlines()[-1])
    assert set(recipe.figures) < set(row) and (run / "losses.png").stat().st_size > 10_000


@pytest.mark.slow
def test_gan_finds_modes_of_the_ring(tmp_path):
    from ganfast.data import gaussians
    from ganfast.metrics import mode_report

    trainer = Trainer(GAN(width=128), "gaussians:ring8", batch=100, steps=600, outdir=str(tmp_path))
    before = trainer.generate(range(500)).norm(dim=1).sub(1).abs().mean()
    trainer.train(progress=False)
    points = trainer.generate(range(500))
    assert points.norm(dim=1).sub(1).abs().mean() < before / 2  # nearer to the unit circle
    assert torch.isfinite(points).all() and mode_report(points, *gaussians.MODES["ring8"]).total == 8
