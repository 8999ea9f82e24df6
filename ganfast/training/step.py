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
    """Update both networks; returns [loss_d, loss_g, accuracy on real, accuracy on fake], fp32 on the device.

    The fakes of the last discriminator update serve the generator's, whose backward makes no gradients for D's weights.
    """
    discriminator.requires_grad_(True)
    for remaining in reversed(range(recipe.d_steps)):
        real = next_real()
        z = torch.randn(len(real), generator.latent_dim, device=real.device)
        with autocast(), torch.set_grad_enabled(remaining == 0):
            fake = generator(z)
        with autocast():
            loss_d, real_logits, fake_logits = recipe.discriminator_loss(discriminator, real, fake.detach())
        discriminator_optimizer.zero_grad(set_to_none=True)
        loss_d.backward()
        discriminator_optimizer.step()

    discriminator.requires_grad_(False)
    with autocast():
        loss_g = recipe.generator_loss(discriminator, fake)
    generator_optimizer.zero_grad(set_to_none=True)
    loss_g.backward()
    generator_optimizer.step()

    with torch.no_grad():
        accuracies = (real_logits > 0).float().mean(), (fake_logits < 0).float().mean()
        return torch.stack([loss_d.float(), loss_g.float(), *accuracies])
