"""Relativistic losses: how much more real one side is than the other (Jolicoeur-Martineau 2018, arXiv:1807.00734).

The discriminator's has its scores of real as ``better`` and of fake as ``worse``; the generator's the other way. A
constant that is added to all scores changes nothing.
"""

from torch import Tensor

from ganfast.functional import sigmoid_bce
from ganfast.reference.wide import wide


def relativistic_pairing(better: Tensor, worse: Tensor) -> Tensor:
    """E[softplus(worse − better)], a scalar, over pairs of scores [B]: RGAN."""
    return sigmoid_bce(better - worse, None, 1.0)


def relativistic_average(better: Tensor, worse: Tensor) -> Tensor:
    """−E[log σ(better − E[worse])] − E[log(1 − σ(worse − E[better]))], a scalar, over scores [B] and [B']: RaGAN."""
    better, worse = wide(better), wide(worse)
    return sigmoid_bce(better - worse.mean(), worse - better.mean(), 1.0, 0.0)
