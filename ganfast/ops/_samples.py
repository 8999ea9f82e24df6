"""Tensors as a row of samples x[i]: each without gaps and one after another, whatever the order of its dimensions.

NCHW and channels_last are both lined up so; a kernel that treats all elements of a sample alike takes them as they are.
"""

import math

import torch
from torch import Tensor


def lined_up(x: Tensor) -> bool:
    """Whether the samples of x lie densely one after another."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((t, s) for s, t in zip(x.shape[1:], x.stride()[1:]) if s != 1):
        if stride != expected:
            return False
        expected *= size
    return x.shape[0] == 1 or x.stride(0) == expected


def compact(x: Tensor) -> Tensor:
    """x itself where it is lined up, else a contiguous copy."""
    return x if lined_up(x) else x.contiguous()


def new(x: Tensor) -> Tensor:
    """An empty result in the order of compact(x)."""
    return torch.empty_like(x) if lined_up(x) else x.new_empty(x.shape)


def in_order_of(other: Tensor, x: Tensor) -> Tensor:
    """x in the order of `other`, which is lined up: itself where the strides that matter agree, else a copy."""
    if x.stride() == other.stride():
        return x
    if all(a == b for size, a, b in zip(x.shape, x.stride(), other.stride()) if size != 1):
        return x
    return torch.empty_like(other, dtype=x.dtype).copy_(x)


def in_one_order(x: Tensor, args, order=compact) -> list:
    """The arguments, of which x is one: tensors of x's shape in the order of order(x), others contiguous."""
    first = order(x)

    def ordered(a):
        if a is x:
            return first
        return in_order_of(first, a) if a.shape == x.shape else a.contiguous()

    return [ordered(a) if isinstance(a, Tensor) else a for a in args]


def size(x: Tensor) -> int:
    """Elements of one sample."""
    return math.prod(x.shape[1:])
