"""Tensors [N, C, ...] as the kernels of batch normalisation read them: contiguous, or with the channels last."""

import math

import torch

from ganfast.ops import _checks


def _last(y):
    """Whether y's memory is that of [N, ..., C]; a contiguous y is not, even if it could be read so, but [N, C] is."""
    if y.is_contiguous():
        return False
    return y.is_contiguous(memory_format=torch.channels_last) if y.dim() == 4 else y.movedim(1, -1).is_contiguous()


def ordered(y):
    """y itself where it is contiguous or channels last, else a contiguous copy."""
    return y if y.is_contiguous() or _last(y) else y.contiguous()


def new(y):
    """An empty result in the order of ordered(y)."""
    return torch.empty_like(y) if y.is_contiguous() or _last(y) else y.new_empty(y.shape)


def new_sums(y):
    """Two numbers a channel, as moments are."""
    return y.new_empty((2, y.shape[1]), dtype=_checks.sum_dtype(y))


def apart(y):
    """y, which is ordered; N, C and P, the number of its pixels; whether its channels are last."""
    batch, channels, *rest = y.shape
    return y, (batch, channels, math.prod(rest)), _last(y)


def lies(y):
    """y, which is ordered; its sizes as it lies, [N, C, P] or [N·P, C, 1]; whether that is with its channels last."""
    _, (batch, channels, plane), last = apart(y)
    sizes = (batch * plane, channels, 1) if last else (batch, channels, plane)
    return y, sizes, sizes[2] == 1


def dense(v):
    """A number a channel, as kernels read it; or None."""
    return None if v is None else v.contiguous()
