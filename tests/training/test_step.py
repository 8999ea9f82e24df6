"""One training step against the loop that everybody writes by hand."""

import contextlib

import pytest
import torch
from torch import nn

from ganfast.models import dcgan
from ganfast.recipes import DCGAN
from ganfast.training.step import train_step


def by_hand(recipe, generator, discriminator, reals, seed):
    """The update of pytorch/examples: D on real and detached fake, then G through D with the same fakes."""
    bce = nn.BCEWithLogitsLoss()
    opt_g = torch.optim.Adam(generator.parameters(), recipe.lr, (recipe.beta1, recipe.beta2))
    opt_d = torch.optim.Adam(discriminator.parameters(), recipe.lr, (recipe.beta1, recipe.beta2))
    torch.manual_seed(seed)
    for real in reals:
        fake = generator(torch.randn(len(real), generator.latent_dim))
        opt_d.zero_grad()
        loss_d = bce(discriminator(real), torch.ones(len(real))) + bce(
            discriminator(fake.detach()), torch.zeros(len(real))
        )
        loss_d.backward()
        opt_d.step()
    opt_g.zero_grad()
    loss_g = bce(discriminator(fake), torch.ones(len(real)))
    loss_g.backward()
    opt_g.step()
    return loss_d.item(), loss_g.item()


@pytest.mark.parametrize("d_steps", [1, 3])
def test_equal_to_the_loop_by_hand(d_steps):
    recipe = DCGAN(width=4, latent_dim=6, d_steps=d_steps)
    torch.manual_seed(1)
    ours, theirs = recipe.networks((1, 16, 16)), recipe.networks((1, 16, 16))
    for a, b in zip(ours, theirs):
        b.load_state_dict(a.state_dict())
    reals = [torch.rand(5, 1, 16, 16) * 2 - 1 for _ in range(d_steps)]
    expected = by_hand(recipe, *theirs, reals, seed=7)

    torch.manual_seed(7)
    optimizers = [recipe.optimizer(network) for network in ours]
    figures = train_step(recipe, *ours, *optimizers, iter(reals).__next__, contextlib.nullcontext)
    assert figures[:2].tolist() == pytest.approx(expected, rel=1e-5)
    for a, b in zip(ours, theirs):
        for one, other in zip(a.state_dict().values(), b.state_dict().values()):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_generator_update_makes_no_gradients_for_the_discriminator():
    recipe = DCGAN(width=4, latent_dim=6)
    generator, discriminator = recipe.networks((1, 16, 16))
    calls = []
    for parameter in discriminator.parameters():
        parameter.register_hook(lambda gradient: calls.append(gradient.shape))
    count = len(list(discriminator.parameters()))
    optimizers = [recipe.optimizer(network) for network in (generator, discriminator)]
    train_step(recipe, generator, discriminator, *optimizers, lambda: torch.zeros(4, 1, 16, 16), contextlib.nullcontext)
    assert len(calls) == count  # each once: the discriminator's own update


def test_figures_are_what_they_say():
    class Sure(nn.Module):
        """Says real to whatever is positive."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(10.0))

        def forward(self, images):
            return self.scale * images.flatten(1).mean(1).sign()

    recipe = DCGAN(width=2, latent_dim=3)
    generator = dcgan.Generator(16, 1, 3, 2)
    nn.init.constant_(generator.layers[-1].conv.bias, -3.0)  # every fake is negative
    real = torch.cat([torch.ones(3, 1, 16, 16), -torch.ones(1, 1, 16, 16)])
    sure = Sure()
    optimizers = [recipe.optimizer(network) for network in (generator, sure)]
    loss_d, loss_g, on_real, on_fake = train_step(
        recipe, generator, sure, *optimizers, lambda: real, contextlib.nullcontext
    ).tolist()
    assert (on_real, on_fake) == (0.75, 1.0)
    assert loss_d == pytest.approx(10 / 4, abs=1e-3) and loss_g == pytest.approx(10, abs=1e-2)
