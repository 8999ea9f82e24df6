"""Every operator in plain PyTorch: the specification the fast ones are tested against. Imports only torch."""

from ganfast.reference.conv import conv_act, conv_transpose_bn_relu
from ganfast.reference.gradient_penalty import interpolate, penalty, penalty_seed, sample_norms
from ganfast.reference.pairwise_l1 import pairwise_l1
from ganfast.reference.sigmoid_bce import sigmoid_bce

__all__ = [
    "conv_act",
    "conv_transpose_bn_relu",
    "interpolate",
    "pairwise_l1",
    "penalty",
    "penalty_seed",
    "sample_norms",
    "sigmoid_bce",
]
