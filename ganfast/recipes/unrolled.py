"""Unrolled Generative Adversarial Networks (Metz et al. 2017, arXiv:1611.02163)."""

import dataclasses
from dataclasses import dataclass

import torch

from ganfast.objectives import unroll
from ganfast.penalty.critics import uncompiled
from ganfast.recipes.base import scores
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class Unrolled(OriginalGAN):
    """G plays against the discriminator as it will answer, some updates ahead (Metz et al. 2017)."""

    name = "unrolled"

    unroll: int = 5
    """updates k of the discriminator that the generator looks ahead, on the batch at hand; 0 is the original game"""
    unroll_lr: float = 1e-4
    """learning rate η of these updates, which are plain gradient descent"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.unroll >= 0, "unroll", "be 0 or more")
        self.require(self.unroll_lr > 0, "unroll_lr", "be above 0")

    def players(self):
        discriminator, generator = super().players()
        return [dataclasses.replace(discriminator, after=self.show), generator]

    def show(self, t):
        t.critic = t.D  # its own player has it as it is; others may have it compiled, which cannot be unrolled

    @uncompiled
    def generator(self, t):
        if not self.unroll:
            return super().generator(t)
        with torch.autocast(t.x.device.type, enabled=False):  # products of second derivatives leave fp16's range
            ahead = unroll(t.critic, lambda critic: self.answer(critic, t), self.unroll, self.unroll_lr)
            return -self.answer(ahead, t) if self.loss == "minimax" else self.loss_g(ahead(t.fake.to(t.x.dtype)))

    def answer(self, critic, t):
        """The discriminator's loss on this batch, as a function of the generator too."""
        return self.loss_d(*scores(critic, t.x, t.fake.to(t.x.dtype), self.merge))
