"""Fully connected networks for points, as the mode-collapse literature draws them (PacGAN, Lin et al. 2018, app. A)."""

from torch import Tensor, nn


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


class Generator(nn.Module):
    """z [B, latent_dim] ~ N(0, 1) → points [B, features]: four hidden layers with BatchNorm and ReLU, no biases."""

    def __init__(self, features: int = 2, latent_dim: int = 2, width: int = 400):
        super().__init__()
        self.config = {"features": features, "latent_dim": latent_dim, "width": width}
        self.latent_dim = latent_dim
        layers, entering = [], latent_dim
        for _ in range(4):
            layers += [nn.Linear(entering, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            entering = width
        self.layers = nn.Sequential(*layers, nn.Linear(width, features, bias=False))
        initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Discriminator(nn.Module):
    """points [B, features] → logits [B]: three maxout layers of ``width`` units with five pieces each."""

    def __init__(self, features: int = 2, width: int = 200):
        super().__init__()
        self.config = {"features": features, "width": width}
        self.layers = nn.Sequential(
            Maxout(features, width, 5), Maxout(width, width, 5), Maxout(width, width, 5), nn.Linear(width, 1)
        )
        initialize(self)

    def forward(self, points: Tensor) -> Tensor:
        return self.layers(points).flatten()
