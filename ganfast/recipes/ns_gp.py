"""A non-saturating GAN with a gradient penalty (Fedus et al. 2018, "Many Paths to Equilibrium", arXiv:1710.08446)."""

from dataclasses import dataclass

from ganfast import penalty
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class NSGP(OriginalGAN):
    """The original game with WGAN-GP's penalty: it learns where its divergence says it cannot (Fedus et al. 2018)."""

    name = "ns-gp"
    telling = ("accuracy_real", "accuracy_fake", "penalty")
    norm = False  # BatchNorm would mix samples

    penalty_weight: float = 10.0
    """λ of the penalty λ·E(‖∇D‖ − 1)² between real and fake samples"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.penalty_weight >= 0, "penalty_weight", "be 0 or more")

    def discriminator(self, t):
        loss = super().discriminator(t)
        pulled = self.pull(t)
        t.log(penalty=pulled)
        return loss + pulled

    def pull(self, t):
        """The gradient penalty."""
        return penalty.gradient_penalty(t.D, t.x, t.fake.detach().to(t.x.dtype), self.penalty_weight, eps=t.uniform())
