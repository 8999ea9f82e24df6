"""GAN: Generative Adversarial Nets (Goodfellow et al. 2014, arXiv:1406.2661), fully connected.

On points it is the game of the mode-collapse literature (PacGAN, Lin et al. 2018, arXiv:1712.04086).
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ganfast.models import mlp
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class GAN(OriginalGAN):
    """Fully connected networks for images or points, by Adam or Algorithm 1's momentum SGD (Goodfellow et al. 2014)."""

    name = "gan"
    architecture: ClassVar[str] = "mlp"

    latent_dim: int = 2
    """numbers in a latent vector; for images 100 is usual"""
    width: int = 400
    """units in each hidden layer of the generator; the discriminator has half, with five maxout pieces each"""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or gradient descent with momentum as in the paper, which needs a larger --lr, such as 0.05"""
    momentum: float = 0.5
    """of sgd"""
    lr: float = 1e-4
    """learning rate"""
    beta1: float = 0.8
    """Adam's decay rate of the first moment"""

    def __post_init__(self):
        super().__post_init__()
        self.require(0 <= self.momentum < 1, "momentum", "lie in [0, 1)")

    def networks(self, data):
        shape = data["x"].shape
        generator = mlp.Generator(shape, self.latent_dim, self.width)
        return {"G": generator, "D": mlp.Discriminator(shape, max(self.width // 2, 1))}

    def players(self):
        if self.optimizer == "adam":
            return super().players()
        sgd = functools.partial(torch.optim.SGD, lr=self.lr, momentum=self.momentum)
        return [dataclasses.replace(player, optimizer=sgd) for player in super().players()]
