"""Checks of an operator's arguments; each error names the argument, what it got and what it needs."""

import torch
from torch import Tensor

from ganfast.reference.wide import sum_dtype

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def floating(name: str, x) -> None:
    """x is a dense tensor of fp32, fp16, bf16 or fp64."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, needs a torch.Tensor")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name}: got dtype {x.dtype}, needs float32, float16, bfloat16 or float64")
    if x.layout != torch.strided:
        raise TypeError(f"{name}: got layout {x.layout}, needs a dense tensor (x.to_dense())")


def alike(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """x has the dtype and the device of `other`."""
    if x.dtype != other.dtype:
        raise TypeError(f"{name}: got dtype {x.dtype}, needs {other.dtype} as {other_name}")
    if x.device != other.device:
        raise ValueError(f"{name}: got device {x.device}, needs {other.device} as {other_name}")


def shaped(name: str, x: Tensor, shape) -> None:
    """x has exactly this shape."""
    if x.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, needs {tuple(shape)}")


def like(name: str, x, other_name: str, other: Tensor, shape=None) -> None:
    """x is a dense floating tensor with the dtype and the device of `other`, and its shape or this one."""
    floating(name, x)
    alike(name, x, other_name, other)
    shaped(name, x, other.shape if shape is None else shape)


def unit(name: str, value) -> None:
    """value is a number in [0, 1]."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name}: got {type(value).__name__}, needs a number")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value}, needs a number between 0 and 1")


def samples(name: str, x) -> None:
    """x is a dense floating tensor with a batch dimension."""
    floating(name, x)
    if x.dim() == 0:
        raise ValueError(f"{name}: got a scalar, needs a batch dimension: [batch, ...]")


def not_negative(name: str, value) -> None:
    """value is a finite number, 0 or more."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name}: got {type(value).__name__}, needs a number")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: got {value}, needs a finite number, 0 or more")


def sums(name: str, v, shape, x_name: str, x: Tensor) -> None:
    """v has the dtype in which sums over x are made (fp32; fp64 for fp64), x's device, and this shape."""
    floating(name, v)
    wide = sum_dtype(x)
    if v.dtype != wide:
        raise TypeError(f"{name}: got dtype {v.dtype}, needs {wide} beside {x_name} of {x.dtype}")
    if v.device != x.device:
        raise ValueError(f"{name}: got device {v.device}, needs {x.device} as {x_name}")
    shaped(name, v, shape)


def per_channel(name: str, v, x_name: str, x: Tensor, channels: int) -> None:
    """v [channels] in x's dtype or in that of sums over x, on x's device."""
    floating(name, v)
    wide = sum_dtype(x)
    if v.dtype not in (x.dtype, wide):
        raise TypeError(f"{name}: got dtype {v.dtype}, needs {wide} or {x_name}'s {x.dtype}")
    if v.device != x.device:
        raise ValueError(f"{name}: got device {v.device}, needs {x.device} as {x_name}")
    shaped(name, v, (channels,))
