"""The game of Generative Adversarial Nets (Goodfellow et al. 2014, arXiv:1406.2661) with logits."""

from dataclasses import dataclass
from typing import Literal

from ganfast.objectives import LOSSES, discriminator_bce
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class OriginalGAN(TwoPlayerGAN):
    """The original game; its recipes only name their networks."""

    loss: Literal["non-saturating", "minimax"] = "non-saturating"
    """the generator's loss"""
    real_target: float = 1.0
    """the discriminator's target α for real samples; 0.9 is one-sided label smoothing"""
    fake_target: float = 0.0
    """its target β for fake samples; above 0 it keeps a generator where it is (Salimans et al. 2016, section 3.4)"""

    def __post_init__(self):
        super().__post_init__()
        for name in ("real_target", "fake_target"):
            self.require(0 <= getattr(self, name) <= 1, name, "lie in [0, 1]")

    def loss_d(self, real, fake):
        return discriminator_bce(real, fake, self.real_target, self.fake_target)

    def loss_g(self, fake):
        return LOSSES[self.loss](fake)
