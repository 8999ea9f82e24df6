"""Autoencoders whose reconstruction error is an energy (Zhao et al. 2017, arXiv:1609.03126)."""

from itertools import pairwise

from torch import Tensor, nn

from ganfast.models.dcgan import initialize, stage_widths
from ganfast.nn import ConvAct2d, ConvTransposeBNReLU2d, FusedSequential


class Energy(nn.Module):
    """samples x → mean((decoder(encoder(x)) − x)²) of each, [B]; ``encoder(x)`` [B, …] is what represents it."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def reconstruct(self, samples: Tensor) -> Tensor:
        return self.decoder(self.encoder(samples))

    def forward(self, samples: Tensor) -> Tensor:
        return (self.reconstruct(samples) - samples).square().flatten(1).mean(1)


def autoencoder(shape: tuple[int, ...], width: int) -> Energy:
    """Of images [C, H, W] by DCGAN's layers down to 4×4 and up again, of points [D] by two hidden layers of 4·width."""
    if len(shape) == 1:
        units = 4 * width
        layers = [nn.Linear(shape[0], units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()]
        decoder = nn.Sequential(nn.Linear(units, units), nn.ReLU(), nn.Linear(units, shape[0]))
        return Energy(nn.Sequential(*layers), decoder)
    channels, *size = shape
    widths = stage_widths(size, width)[::-1]
    encoder = [ConvAct2d(channels, widths[0], 4, 2, 1)]
    encoder += [ConvAct2d(a, b, 4, 2, 1, batch_norm=True) for a, b in pairwise(widths)]
    decoder = [ConvTransposeBNReLU2d(a, b, 4, 2, 1) for a, b in pairwise(widths[::-1])]
    decoder += [
        ConvTransposeBNReLU2d(widths[0], channels, 4, 2, 1, bias=True, batch_norm=False, activation="tanh"),
    ]
    made = Energy(FusedSequential(*encoder), FusedSequential(*decoder))
    initialize(made)
    return made
