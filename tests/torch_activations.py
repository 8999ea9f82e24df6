"""torch's own modules of the activations in ganfast/activations.py."""

from torch import nn

from ganfast import activations


class ScaledLeakyReLU(nn.LeakyReLU):
    def forward(self, x):
        return 2**0.5 * super().forward(x)


def torch_module(name, slope=0.2):
    """The module of an activation; Identity for None."""
    row = activations.ROWS[name]
    kind = nn.Identity if name is None else getattr(nn, row.layer) if row.layer else ScaledLeakyReLU
    return kind(slope) if row.has_slope else kind()
