"""Layers that compute a convolution, its normalisation and its activation in one operator, and losses.

Their state_dict keys are those of torch's own layers under ``conv.`` and ``bn.``.
"""

from ganfast.nn.conv import ConvAct2d, ConvTransposeBNReLU2d
from ganfast.nn.loss import BCEWithLogitsGANLoss

__all__ = ["BCEWithLogitsGANLoss", "ConvAct2d", "ConvTransposeBNReLU2d"]
