"""One training step: ``d_steps`` updates of the discriminator, one of the generator."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ganfast.recipes import Recipe


def train_step(
    recipe: Recipe,
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: torch.optim.Optimizer,
    discriminator_optimizer: torch.optim.Optimizer,
    next_real: Callable[[], Tensor],
    autocast: Callable[[], object],
) -> Tensor:
    """Update both networks; returns [loss_d, loss_g, *recipe.figures], fp32 on the device.

    The fakes of the last discriminator update serve the generator's, whose backward makes no gradients for D's weights.
    """
    discriminator.requires_grad_(True)
    for remaining in reversed(range(recipe.d_steps)):
        real = next_real()
        z = torch.randn(len(real), generator.latent_dim, device=real.device)
        with autocast(), torch.set_grad_enabled(remaining == 0):
            fake = generator(z)
        discriminator_optimizer.zero_grad(set_to_none=True)
        loss_d, *figures = recipe.discriminator_gradients(discriminator, real, fake.detach(), autocast).unbind()
        discriminator_optimizer.step()
        recipe.constrain(discriminator)

    discriminator.requires_grad_(False)
    with autocast():
        loss_g = recipe.generator_loss(discriminator, fake, real)
    generator_optimizer.zero_grad(set_to_none=True)
    loss_g.backward()
    generator_optimizer.step()
    return torch.stack([loss_d, loss_g.detach().float(), *figures])
