"""Layers that compute a convolution, its normalisation and its activation in one operator, batch statistics and losses.

The convolutions' state_dict keys are those of torch's own layers under ``conv.`` and ``bn.``.
"""

from ganfast.nn.chain import FusedSequential
from ganfast.nn.conv import ConvAct2d, ConvTransposeBNReLU2d
from ganfast.nn.loss import BCEWithLogitsGANLoss
from ganfast.nn.minibatch import MinibatchDiscrimination, MinibatchStddev
from ganfast.nn.mixing import mixes_samples
from ganfast.nn.ranks import SyncBatchNorm, gather, ranks, synchronize

__all__ = [
    "BCEWithLogitsGANLoss",
    "ConvAct2d",
    "ConvTransposeBNReLU2d",
    "FusedSequential",
    "MinibatchDiscrimination",
    "MinibatchStddev",
    "SyncBatchNorm",
    "gather",
    "mixes_samples",
    "ranks",
    "synchronize",
]
