"""Normalisation of networks that translate images, which train with batches of one."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.errors import InputError

Norm = Literal["batch", "instance"]


class BatchNorm2d(nn.BatchNorm2d):
    """By the batch's statistics in training, by each sample's own in evaluation: those of a test batch of one.

    So the same in both where batches are of one (Isola et al. 2017, arXiv:1611.07004, section 3.4). The running
    statistics are there for the keys of published files; nothing reads them.
    """

    of_one = True
    """a batch of one sample has statistics"""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


NORMS = {"batch": BatchNorm2d, "instance": nn.InstanceNorm2d}


def layer(norm: Norm, features: int) -> nn.Module:
    """BatchNorm with scale and shift, after convolutions without a bias; InstanceNorm has none, and they have one."""
    if norm not in NORMS:
        raise InputError(f"norm must be batch or instance, got {norm!r} (--norm).")
    return NORMS[norm](features)
