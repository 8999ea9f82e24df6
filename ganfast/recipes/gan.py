"""GAN on points: the fully connected game of the mode-collapse literature (Lin et al. 2018, arXiv:1712.04086)."""

from dataclasses import dataclass

from ganfast.data.columns import Points
from ganfast.models import mlp
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class GAN(OriginalGAN):
    """Fully connected networks for points, as in PacGAN's ring and grid (Lin et al. 2018)."""

    name = "gan"
    columns = {"x": Points()}

    latent_dim: int = 2
    """numbers in a latent vector"""
    width: int = 400
    """units in each hidden layer of the generator; the discriminator has half"""
    lr: float = 1e-4
    """Adam's learning rate"""
    beta1: float = 0.8
    """Adam's decay rate of the first moment"""

    def networks(self, data):
        (features,) = data["x"].shape
        generator = mlp.Generator(features, self.latent_dim, self.width)
        return {"G": generator, "D": mlp.Discriminator(features, max(self.width // 2, 1))}
