"""GAN on points: the fully connected game of the mode-collapse literature (Lin et al. 2018, arXiv:1712.04086)."""

from dataclasses import dataclass

from ganfast.models import mlp
from ganfast.recipes.base import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class GAN(OriginalGAN):
    """Fully connected networks for points, as in PacGAN's ring and grid (Lin et al. 2018)."""

    name = "gan"
    data_kind = "points"

    latent_dim: int = 2
    """numbers in a latent vector"""
    width: int = 400
    """units in each hidden layer of the generator; the discriminator has half"""
    lr: float = 1e-4
    """Adam's step size, both networks"""
    beta1: float = 0.8
    """Adam's decay of the mean gradient"""

    def networks(self, shape):
        (features,) = shape
        return mlp.Generator(features, self.latent_dim, self.width), mlp.Discriminator(
            features, max(self.width // 2, 1)
        )
