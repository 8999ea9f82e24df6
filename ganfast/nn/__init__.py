"""Layers that compute a convolution, its normalisation and its activation in one operator, or the latter two; losses;
and remedies that make a discriminator out of another: what stands in front of it, in its layers and at its head.

The convolutions' state_dict keys are those of torch's own layers under ``conv.`` and ``bn.``.
"""

from ganfast.nn.augment import Augment, InstanceNoise
from ganfast.nn.chain import FusedSequential
from ganfast.nn.conv import ConvAct2d, ConvTransposeBNReLU2d
from ganfast.nn.head import MinibatchFeatures, features_of, keep_features, with_minibatch_features
from ganfast.nn.loss import BCEWithLogitsGANLoss
from ganfast.nn.minibatch import MinibatchDiscrimination, MinibatchStddev
from ganfast.nn.mixing import mixes_samples
from ganfast.nn.norms import AdaINAct, ConditionalBatchNormAct2d, InstanceNormAct2d, SPADEAct
from ganfast.nn.ranks import SyncBatchNorm, gather, ranks, synchronize
from ganfast.nn.spectral_norm import spectral_norm
from ganfast.nn.virtual_batch_norm import VirtualBatchNorm, virtual_batch_norm

__all__ = [
    "AdaINAct",
    "Augment",
    "BCEWithLogitsGANLoss",
    "ConditionalBatchNormAct2d",
    "ConvAct2d",
    "ConvTransposeBNReLU2d",
    "FusedSequential",
    "InstanceNoise",
    "InstanceNormAct2d",
    "MinibatchDiscrimination",
    "MinibatchFeatures",
    "MinibatchStddev",
    "SPADEAct",
    "SyncBatchNorm",
    "VirtualBatchNorm",
    "features_of",
    "gather",
    "keep_features",
    "mixes_samples",
    "ranks",
    "spectral_norm",
    "synchronize",
    "virtual_batch_norm",
    "with_minibatch_features",
]
