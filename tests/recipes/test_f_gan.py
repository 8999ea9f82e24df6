"""f-GAN: each divergence is estimated and trained by its row of the table."""

import dataclasses
import typing
from types import SimpleNamespace

import pytest
import torch
from training.games import images, make, play

from ganfast.errors import InputError
from ganfast.objectives import DIVERGENCES
from ganfast.recipes import RECIPES
from ganfast.recipes.f_gan import LOSSES

FGAN = RECIPES["f-gan"]


def test_options_are_the_rows_of_the_table():
    kinds = {field.name: field.type for field in dataclasses.fields(FGAN)}
    assert typing.get_args(kinds["divergence"]) == tuple(DIVERGENCES)
    assert typing.get_args(kinds["loss"]) == tuple(LOSSES)
    with pytest.raises(InputError, match=r"divergence must be kullback-leibler or .*, got 'neyman'"):
        FGAN(divergence="neyman")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_every_divergence_trains(divergence, loss):
    rows = play(make(FGAN(divergence=divergence, loss=loss, width=4, latent_dim=6), [images(count=12)]), 3)
    assert torch.tensor([list(row.values()) for row in rows]).isfinite().all()
    assert all(row["divergence"] == -row["loss_d"] and row["grad_norm_g"] > 0 for row in rows)


@pytest.mark.parametrize("divergence, middle", [("kullback-leibler", 1.0), ("reverse-kl", 0.0), ("gan", 0.0)])
def test_accuracies_are_by_the_threshold(divergence, middle):
    """The critic says its input; ``middle`` is where g_f(v) = f'(1)."""
    logged = {}
    fake = torch.tensor([-0.1, 0.1, -0.2, -0.3]) + middle
    turn = SimpleNamespace(
        x=torch.tensor([0.1, -0.1, 0.2, -0.2]) + middle, normal=torch.zeros, G=lambda z: fake, D=torch.nn.Identity(),
        log=lambda **figures: logged.update(figures),
    )  # fmt: skip
    loss = FGAN(divergence=divergence).discriminator(turn)
    assert (logged["accuracy_real"], logged["accuracy_fake"], logged["divergence"]) == (0.5, 0.75, -loss)
