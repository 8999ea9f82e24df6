"""What the trainer asks of a recipe, and the answers of the original GAN game."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ganfast.errors import InputError, check_choices
from ganfast.nn import mixes_samples
from ganfast.objectives import LOSSES, discriminator_bce


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method: two networks for a data shape, their losses and their optimisers."""

    name: ClassVar[str]
    data_kind: ClassVar[Literal["images", "points"]]
    figures: ClassVar[tuple[str, str]]
    """two numbers that tell how the game goes, beside the losses"""

    d_steps: int = 1
    """discriminator updates for each generator update"""
    lr: float = 2e-4
    """Adam's step size, both networks"""
    beta1: float = 0.5
    """Adam's decay of the mean gradient"""
    beta2: float = 0.999
    """Adam's decay of the mean squared gradient"""

    def __post_init__(self):
        check_choices(self)
        for name in ("d_steps", "latent_dim", "width"):  # the latter where a recipe has them
            value = getattr(self, name, 1)
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value} (--{name.replace('_', '-')}).")
        if not self.lr > 0:
            raise InputError(f"lr must be above 0, got {self.lr} (--lr).")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise InputError(
                f"beta1 and beta2 must lie in [0, 1), got {self.beta1} and {self.beta2} (--beta1, --beta2)."
            )

    def networks(self, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
        """A generator and a discriminator for samples of ``shape``: (C, H, W) of images or (D,) of points."""
        raise NotImplementedError(f"{type(self).__name__} names no networks")

    def discriminator_gradients(self, discriminator: nn.Module, real: Tensor, fake: Tensor, step) -> Tensor:
        """Add the gradients of the discriminator's loss to its parameters' ``.grad``.

        Returns [loss, *figures], fp32 on the device. Forward passes run under ``step.autocast()``, the loss goes to
        ``step.backward``, which scales it for fp16; random numbers come from ``step.uniform(len(real), *shape)``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no discriminator's loss")

    @staticmethod
    def scores(discriminator: nn.Module, real: Tensor, fake: Tensor, merge: bool = False) -> tuple[Tensor, Tensor]:
        """D(real) and D(fake), in one pass where that is the same, or with ``merge``: layers that mix then see both."""
        if merge or not mixes_samples(discriminator):
            return discriminator(torch.cat([real, fake])).chunk(2)
        return discriminator(real), discriminator(fake)

    def constrain(self, discriminator: nn.Module) -> None:
        """What is done to the discriminator's weights after each of its updates: nothing."""

    def generator_loss(self, discriminator: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
        """A scalar; ``real`` is the discriminator's last batch, for losses that compare the two."""
        raise NotImplementedError(f"{type(self).__name__} has no generator's loss")

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), self.lr, (self.beta1, self.beta2), fused=True)


@dataclass(frozen=True, kw_only=True)
class OriginalGAN(Recipe):
    """The game of Goodfellow et al. 2014 with logits; its recipes only name their networks."""

    figures = ("accuracy_real", "accuracy_fake")

    loss: Literal["non-saturating", "minimax"] = "non-saturating"
    """the generator's side of the game"""
    real_target: float = 1.0
    """the discriminator's target for real samples; 0.9 is one-sided label smoothing"""
    merge: bool = False
    """real and fake are one batch for the discriminator even where its layers mix samples, as BatchNorm does"""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.real_target <= 1:
            raise InputError(f"real_target must lie in [0, 1], got {self.real_target} (--real-target).")

    def discriminator_gradients(self, discriminator, real, fake, step):
        with step.autocast():
            real_logits, fake_logits = self.scores(discriminator, real, fake, self.merge)
            loss = discriminator_bce(real_logits, fake_logits, self.real_target)
        step.backward(loss)
        with torch.no_grad():
            return torch.stack([loss.float(), (real_logits > 0).float().mean(), (fake_logits < 0).float().mean()])

    def generator_loss(self, discriminator, fake, real):
        return LOSSES[self.loss](discriminator(fake))
