"""Fully connected networks for images that are classified from few labels, as Salimans et al. 2016 have them."""

from math import prod

from torch import Tensor, nn
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


class Classifier(nn.Module):
    """images [B, C, H, W] in [−1, 1] → logits [B, classes], with Gaussian noise on the input of each layer in training.

    Five layers of 4, 2, 1, 1, 1 times ``units``, each w = g·v/‖v‖ (Salimans and Kingma 2016, arXiv:1602.07868) and ReLU.
    Standard deviations of the noise are the authors': 0.5, and 0.6 of pixels, which is 0.3 of those in [0, 1].
    """

    def __init__(self, shape: tuple[int, ...], classes: int = 10, units: int = 250):
        super().__init__()
        self.config = {"shape": tuple(shape), "classes": classes, "units": units}
        layers, entering, noise = [nn.Flatten()], prod(shape), 0.6
        for leaving in (4 * units, 2 * units, units, units, units):
            layers += [InstanceNoise(noise), nn.Linear(entering, leaving), nn.ReLU()]
            entering, noise = leaving, 0.5
        self.layers = nn.Sequential(*layers, InstanceNoise(noise), nn.Linear(entering, classes))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
                weight_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
