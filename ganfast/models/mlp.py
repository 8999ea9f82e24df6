"""Fully connected networks for points and images, as the mode-collapse literature has them (PacGAN, app. A)."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

Shape = int | Sequence[int]


class Maxout(nn.Module):
    """x [B, in_features] → the maximum of ``pieces`` affine maps [B, out_features] (Goodfellow et al. 2013)."""

    def __init__(self, in_features: int, out_features: int, pieces: int):
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(in_features, out_features * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


def initialize(module: nn.Module, std: float = 0.02) -> None:
    """In place: every weight matrix N(0, std²), every bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def kaiming(module: nn.Module) -> None:
    """In place: every convolution and linear layer by He's rule, biases 0, for networks without normalisation."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def sides(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


class Generator(nn.Module):
    """z [B, latent_dim] ~ N(0, 1) → points [B, D], or images [B, C, H, W] in (−1, 1), by ``shape``.

    ``hidden`` layers with BatchNorm and ReLU, no biases; ``batch_norm=False``: biases instead.
    """

    def __init__(
        self, shape: Shape = 2, latent_dim: int = 2, width: int = 400, batch_norm: bool = True, hidden: int = 4
    ):  # fmt: skip
        super().__init__()
        shape = sides(shape)
        self.config = {"shape": shape, "latent_dim": latent_dim, "width": width, "batch_norm": batch_norm}
        self.config["hidden"] = hidden
        self.latent_dim = latent_dim
        layers, entering = [], latent_dim
        for _ in range(hidden):
            layers += [nn.Linear(entering, width, bias=not batch_norm)]
            layers += [nn.BatchNorm1d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
            entering = width
        layers += [nn.Linear(width, prod(shape), bias=not batch_norm)]
        self.layers = nn.Sequential(*layers, *([nn.Tanh(), nn.Unflatten(1, shape)] if len(shape) > 1 else []))
        initialize(self, 0.02 if batch_norm else width**-0.5)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Discriminator(nn.Module):
    """points [B, D], or images [B, C, H, W] → logits [B]: three maxout layers of ``width`` units, five pieces each."""

    def __init__(self, shape: Shape = 2, width: int = 200):
        super().__init__()
        shape = sides(shape)
        self.config = {"shape": shape, "width": width}
        self.layers = nn.Sequential(
            *([nn.Flatten()] if len(shape) > 1 else []),
            Maxout(prod(shape), width, 5), Maxout(width, width, 5), Maxout(width, width, 5), nn.Linear(width, 1),
        )  # fmt: skip
        initialize(self)

    def forward(self, samples: Tensor) -> Tensor:
        return self.layers(samples).flatten()


class Encoder(nn.Module):
    """points [B, D], or images [B, C, H, W] → numbers [B, outputs]: two hidden layers with BatchNorm and ReLU.

    ``batch_norm=False``: LeakyReLU 0.2 instead, which mixes no samples. Weights begin by He's rule.
    """

    def __init__(self, shape: Shape = 2, outputs: int = 2, width: int = 400, batch_norm: bool = True):
        super().__init__()
        shape = sides(shape)
        self.config = {"shape": shape, "outputs": outputs, "width": width, "batch_norm": batch_norm}
        layers, entering = [nn.Flatten()] if len(shape) > 1 else [], prod(shape)
        for _ in range(2):
            layers += [nn.Linear(entering, width, bias=not batch_norm)]
            layers += [nn.BatchNorm1d(width), nn.ReLU()] if batch_norm else [nn.LeakyReLU(0.2)]
            entering = width
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))
        kaiming(self)

    def forward(self, samples: Tensor) -> Tensor:
        return self.layers(samples)
