"""Networks that are given a class beside their input, or have to find it, by the name of an architecture."""

from math import prod

import torch
from torch import Tensor, nn

from ganfast.models import architectures
from ganfast.models.mlp import Maxout
from ganfast.models.priors import uniform


def generator(shape: tuple[int, ...], latent_dim: int, classes: int, width: int, architecture: str) -> nn.Module:
    """z [B, latent_dim], y int64 [B] → samples [B, *shape]."""
    if architecture == "mlp":
        return MLPGenerator(shape, latent_dim, classes, width)
    return ConditionalGenerator(architectures.generator(shape, latent_dim + classes, width, architecture), classes)


def discriminator(
    shape: tuple[int, ...], classes: int, width: int, architecture: str, conditioning: str = "concat"
) -> nn.Module:
    """samples [B, *shape], y int64 [B] → scores [B]; samples → (scores, logits [B, classes]) where it is "aux"."""
    if conditioning == "concat":
        if architecture == "mlp":
            return MLPDiscriminator(shape, classes, width)
        packed = (shape[0] + classes, *shape[1:])
        return ConditionalDiscriminator(architectures.discriminator(packed, width, architecture), classes)
    heads = {"projection": ProjectionDiscriminator, "aux": AuxiliaryDiscriminator}
    norm = architecture != "mlp"
    return heads[conditioning](architectures.encoder(shape, 1 + classes, width, architecture, norm))


def one_hot(classes: Tensor, count: int) -> Tensor:
    """int64 [B] → fp32 [B, count], by device operations alone."""
    return (classes.unsqueeze(1) == torch.arange(count, device=classes.device)).float()


class ConditionalGenerator(nn.Module):
    """z [B, n], y int64 [B] → network([z; one_hot(y)]); the network takes vectors of n + classes numbers."""

    def __init__(self, network: nn.Module, classes: int):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.network(torch.cat([z, one_hot(y, self.classes).to(z.dtype)], 1))


class ConditionalDiscriminator(nn.Module):
    """images [B, C, H, W], y int64 [B] → network of C + classes channels: the class is a constant map of ones."""

    def __init__(self, network: nn.Module, classes: int):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        maps = one_hot(y, self.classes).to(images.dtype)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        return self.network(torch.cat([images, maps], 1))


class ProjectionDiscriminator(nn.Module):
    """images, y int64 [B] → ψ(φ(x)) + ⟨e(y), φ(x)⟩ [B] (Miyato and Koyama 2018, arXiv:1802.05637).

    ``network`` ends in 1 + K numbers: its last layer is ψ above the embeddings e, each with a bias of its own; φ is
    what that layer reads, at all positions of a convolutional network.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        score, products = self.network(images).tensor_split([1], 1)
        return score.squeeze(1) + (products * one_hot(y, products.shape[1]).to(products.dtype)).sum(1)


class AuxiliaryDiscriminator(nn.Module):
    """images → (scores [B], logits [B, K] of their classes), by a ``network`` that ends in 1 + K numbers.

    Odena et al. 2017, arXiv:1610.09585.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(images)
        return found[:, 0], found[:, 1:]


class MLPGenerator(nn.Module):
    """z [B, latent_dim] ~ N(0, 1), y int64 [B] → images [B, *shape] in (−1, 1) (Mirza and Osindero 2014, section 4.1).

    z becomes uniform in the unit cube, then 200 ReLU units, y 1,000, both together 1,200, at ``width`` 64; half of the
    units are dropped out in training. Their generator ends in a sigmoid, this one in tanh.
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int = 100, classes: int = 10, width: int = 64):
        super().__init__()
        of_z, of_y, joint = scaled(width, 200, 1000, 1200)
        self.latent_dim, self.classes = latent_dim, classes
        self.of_z = nn.Sequential(nn.Linear(latent_dim, of_z), nn.ReLU(), nn.Dropout())
        self.of_y = nn.Sequential(nn.Linear(classes, of_y), nn.ReLU(), nn.Dropout())
        self.joint = nn.Sequential(
            nn.Linear(of_z + of_y, joint), nn.ReLU(), nn.Dropout(), nn.Linear(joint, prod(shape)), nn.Tanh(),
            nn.Unflatten(1, tuple(shape)),
        )  # fmt: skip

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        unit = (uniform(z) + 1) / 2
        return self.joint(torch.cat([self.of_z(unit), self.of_y(one_hot(y, self.classes).to(z.dtype))], 1))


class MLPDiscriminator(nn.Module):
    """images [B, *shape], y int64 [B] → logits [B] by maxout layers (Mirza and Osindero 2014, section 4.1).

    240 units of five pieces for images, 50 of five for y, 240 of four for both, at ``width`` 64; half of the units are
    dropped out in training.
    """

    def __init__(self, shape: tuple[int, ...], classes: int = 10, width: int = 64):
        super().__init__()
        of_x, of_y, joint = scaled(width, 240, 50, 240)
        self.classes = classes
        self.of_x = nn.Sequential(nn.Flatten(), Maxout(prod(shape), of_x, 5), nn.Dropout())
        self.of_y = nn.Sequential(Maxout(classes, of_y, 5), nn.Dropout())
        self.joint = nn.Sequential(Maxout(of_x + of_y, joint, 4), nn.Dropout(), nn.Linear(joint, 1))

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        of_y = self.of_y(one_hot(y, self.classes).to(images.dtype))
        return self.joint(torch.cat([self.of_x(images), of_y], 1)).flatten()


def scaled(width: int, *units: int) -> list[int]:
    return [max(each * width // 64, 1) for each in units]
