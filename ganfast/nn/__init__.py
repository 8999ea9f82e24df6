"""Layers that compute a convolution, its normalisation and its activation in one operator, batch statistics and losses;
and remedies that make a discriminator out of another: what stands in front of it, in its layers and at its head.

The convolutions' state_dict keys are those of torch's own layers under ``conv.`` and ``bn.``.
"""

from ganfast.nn.augment import Augment, InstanceNoise
from ganfast.nn.chain import FusedSequential
from ganfast.nn.conv import ConvAct2d, ConvTransposeBNReLU2d
from ganfast.nn.head import MinibatchFeatures, features_of, with_minibatch_features
from ganfast.nn.loss import BCEWithLogitsGANLoss
from ganfast.nn.minibatch import MinibatchDiscrimination, MinibatchStddev
from ganfast.nn.mixing import mixes_samples
from ganfast.nn.ranks import SyncBatchNorm, gather, ranks, synchronize
from ganfast.nn.spectral_norm import spectral_norm
from ganfast.nn.virtual_batch_norm import VirtualBatchNorm, virtual_batch_norm

__all__ = [
    "Augment",
    "BCEWithLogitsGANLoss",
    "ConvAct2d",
    "ConvTransposeBNReLU2d",
    "FusedSequential",
    "InstanceNoise",
    "MinibatchDiscrimination",
    "MinibatchFeatures",
    "MinibatchStddev",
    "SyncBatchNorm",
    "VirtualBatchNorm",
    "features_of",
    "gather",
    "mixes_samples",
    "ranks",
    "spectral_norm",
    "synchronize",
    "virtual_batch_norm",
    "with_minibatch_features",
]
