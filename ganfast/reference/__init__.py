"""Every operator in plain PyTorch: the specification the fast ones are tested against. Imports only torch
and the table of activations.
"""

from ganfast.reference.activation import activate
from ganfast.reference.batch_norm_act import batch_norm_act
from ganfast.reference.gradient_penalty import gradient_penalty, sample_norms
from ganfast.reference.interpolate import interpolate
from ganfast.reference.norm_act import norm_act
from ganfast.reference.pairwise_l1 import pairwise_l1
from ganfast.reference.sigmoid_bce import sigmoid_bce

__all__ = [
    "activate",
    "batch_norm_act",
    "gradient_penalty",
    "interpolate",
    "norm_act",
    "pairwise_l1",
    "sample_norms",
    "sigmoid_bce",
]
