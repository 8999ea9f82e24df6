"""Each recipe learns something about real data, and describes itself."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ganfast import Trainer
from ganfast.data import Spec, open_dataset
from ganfast.errors import InputError
from ganfast.recipes import RECIPES, Player, Recipe

DCGAN, GAN, R3GAN, WGAN, WGANGP = (RECIPES[name] for name in ("dcgan", "gan", "r3gan", "wgan", "wgan-gp"))


def test_every_recipe_has_a_name_a_paper_and_explained_options():
    for name, cls in RECIPES.items():
        recipe = cls()
        assert recipe.name == name and "et al." in cls.__doc__ and recipe == cls()
        assert dataclasses.is_dataclass(recipe) and issubclass(cls, Recipe)
        assert recipe.players() and all(isinstance(player, Player) for player in recipe.players())
        assert {column.source for column in recipe.columns.values()} <= {0, 1}


def test_a_recipe_stays_on_one_screen():
    import ganfast.recipes

    for cls in RECIPES.values():
        file = Path(ganfast.recipes.__file__).parent / (cls.__module__.rpartition(".")[2] + ".py")
        assert len(file.read_text().splitlines()) <= 100, file


def test_dcgan_has_the_papers_defaults():
    recipe = DCGAN()
    assert (recipe.lr, recipe.beta1, recipe.latent_dim, recipe.d_steps) == (2e-4, 0.5, 100, 1)


@pytest.mark.parametrize("make", [lambda: GAN(loss="hinge"), lambda: WGANGP(architecture="stylegan")])
def test_a_word_that_an_option_does_not_have_is_refused(make):
    with pytest.raises(
        InputError, match=r"must be (non-saturating or minimax, got 'hinge'|dcgan or resnet or mlp, got 'styl)"
    ):
        make()


def test_wgan_clips_its_weights(tmp_path):
    trainer = Trainer(WGAN(width=2, latent_dim=3, d_steps=1), "digits", size=16, batch=4, steps=1, outdir=str(tmp_path))
    torch.nn.init.constant_(trainer.state.networks["D"].layers[0].conv.bias, 3.0)
    trainer.train(progress=False)
    assert max(p.abs().max().item() for p in trainer.state.networks["D"].parameters()) == pytest.approx(0.01)
    with pytest.raises(InputError, match="clip must be above 0"):
        WGAN(clip=0)


def test_an_option_that_would_do_nothing_is_none_of_the_recipe():
    for name, absent in (
        ("cgan", "merge"),
        ("acgan", "conditioning"),
        ("wgan-gp", "merge"),
        ("adagan", "merge"),
        ("chekhov", "merge"),
    ):
        assert absent not in RECIPES[name]().options()


@pytest.mark.parametrize(
    "name, fields",
    [
        ("infogan", {"categories": 1}),
        ("infogan", {"lr_g": 0.0}),
        ("infogan", {"latent_std": 0.0}),
        ("began", {"gamma": 1.5}),
        ("began", {"gain": 0.0}),
        ("cyclegan", {"blocks": 0}),
        ("cyclegan", {"direction": "aa"}),
        ("aae", {"modes": 1}),
        ("vae", {"kl_weight": -1.0}),
        ("vae-gan", {"gamma": -1.0}),
        ("cgan", {"width": 0}),
        ("acgan", {"dropout": 1.0}),
        ("r3gan", {"gamma": -1.0}),
        ("wgan-gp", {"penalty_weight": -1.0}),
    ],
)
def test_impossible_fields_are_named(name, fields):
    (field,) = fields
    with pytest.raises(InputError, match=rf"^{field} must .* \(--{field.replace('_', '-')}\)"):
        RECIPES[name](**fields)


def test_cyclegan_has_the_keys_of_the_authors_code():
    """pytorch-CycleGAN-and-pix2pix, resnet_9blocks and the basic discriminator, as their checkpoints name them."""
    shape = {each: Spec("images", (3, 64, 64)) for each in "ab"}
    networks = RECIPES["cyclegan"](width=4).networks(shape)
    keys = set(networks["G_ab"].state_dict())
    assert {"model.1.weight", "model.4.bias", "model.7.weight", "model.10.conv_block.1.weight"} < keys
    assert {"model.18.conv_block.5.bias", "model.19.weight", "model.22.weight", "model.26.weight"} < keys
    assert len(keys) == 2 * (1 + 2 + 9 * 2 + 2 + 1)
    keys = set(networks["D_a"].state_dict())
    assert keys == {f"model.{k}.{part}" for k in (0, 2, 5, 8, 11) for part in ("weight", "bias")}
    assert networks["D_a"](torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


CONTRIBUTING = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
RALSGAN = re.search(r"```python\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)[1]


def test_a_recipe_of_another_package_is_one_file(tmp_path):
    """Found by its entry point; trained, shown, drawn from and listed from the command line."""
    (tmp_path / "their_gan.py").write_text(RALSGAN)
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[ganfast.recipes]\nralsgan = their_gan:RaLSGAN\nbroken = their_gan:Missing\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def ganfast(*arguments):
        return subprocess.run([sys.executable, "-m", "ganfast", *arguments], cwd=tmp_path, env=env, text=True,
                              capture_output=True, check=True, timeout=300)  # fmt: skip

    listed = ganfast("train", "-h")
    assert "ralsgan    Each sample is compared" in listed.stdout
    assert "recipe broken (their_gan:Missing) cannot be loaded" in listed.stderr
    assert "numbers in a latent vector" in ganfast("train", "ralsgan", "-h").stdout
    ganfast("train", "ralsgan", "--data", "digits", "--size", "16", "--batch", "8", "--steps", "4", "--log-every", "1")
    run = tmp_path / "runs" / "00000-ralsgan-digits"
    assert len((run / "stats.jsonl").read_text().splitlines()) == 4
    ganfast("generate", "--network", str(run), "--seeds", "0-3")
    assert (tmp_path / "generated" / "grid.png").is_file()
    from ganfast import load

    with pytest.raises(InputError, match="of recipe ralsgan, which is not installed: install the package that has it"):
        load(run)


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
    assert set(recipe.telling) < set(row) and (run / "losses.png").stat().st_size > 10_000


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
