"""Fully connected networks for images that are classified from few labels, as Salimans et al. 2016 have them."""

from math import prod

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from ganfast.nn import InstanceNoise


class Generator(nn.Module):
    """z [B, latent_dim] ~ N(0, 1) → images [B, C, H, W] in (−1, 1): two layers of ``units``, BatchNorm and softplus."""

    def __init__(self, shape: tuple[int, ...], latent_dim: int = 100, units: int = 500):
        super().__init__()
        self.config = {"shape": tuple(shape), "latent_dim": latent_dim, "units": units}
        self.latent_dim = latent_dim
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, units, bias=False), nn.BatchNorm1d(units), nn.Softplus(),
            nn.Linear(units, units, bias=False), nn.BatchNorm1d(units), nn.Softplus(),
            weight_norm(nn.Linear(units, prod(shape))), nn.Tanh(), nn.Unflatten(1, tuple(shape)),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class UnitRows(nn.Module):
    """v [out, in] → √2·v/‖v‖ of each row: a layer after ReLU keeps its size, and cannot grow to outdo noise."""

    def forward(self, v: Tensor) -> Tensor:
        return 2**0.5 * F.normalize(v, dim=1)


def dense(entering: int, leaving: int) -> nn.Linear:
    """Of v ~ N(0, 0.1²), on which the size of a step depends."""
    layer = nn.Linear(entering, leaving)
    nn.init.normal_(layer.weight, std=0.1)
    nn.init.zeros_(layer.bias)
    return parametrize.register_parametrization(layer, "weight", UnitRows())


class Classifier(nn.Module):
    """images [B, C, H, W] in [−1, 1] → logits [B, classes], with Gaussian noise on the input of each layer in training.

    Five ReLU layers of 4, 2, 1, 1, 1 times ``units``, by weight normalisation (Salimans and Kingma 2016,
    arXiv:1602.07868) whose norms stay, but for the last layer's. Standard deviations of the noise are the authors':
    0.5, and of pixels 0.3 of the whole range.
    """

    def __init__(self, shape: tuple[int, ...], classes: int = 10, units: int = 250):
        super().__init__()
        self.config = {"shape": tuple(shape), "classes": classes, "units": units}
        layers, entering, noise = [nn.Flatten()], prod(shape), 0.6
        for leaving in (4 * units, 2 * units, units, units, units):
            layers += [InstanceNoise(noise), dense(entering, leaving), nn.ReLU()]
            entering, noise = leaving, 0.5
        self.layers = nn.Sequential(*layers, InstanceNoise(noise), weight_norm(nn.Linear(entering, classes)))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images + 1)  # what is dark is 0
