"""What is given as a critic and its further arguments."""

import functools

import torch
from torch import Tensor, nn

from ganfast import functional


def unwrapped(critic):
    """The critic within DistributedDataParallel or torch.compile; raises for what is no critic."""
    if not callable(critic):
        raise TypeError(f"critic: got {type(critic).__name__}, needs a torch.nn.Module or a function of samples")
    if not isinstance(critic, nn.Module):
        return critic
    if isinstance(critic, nn.parallel.DistributedDataParallel):
        return unwrapped(critic.module)
    critic = getattr(critic, "_orig_mod", critic)
    if next(critic.parameters(), None) is None:
        raise ValueError("critic: has no parameters, needs some that a penalty can train")
    return critic


def constants(inputs) -> tuple:
    """The further arguments of a critic: they get no gradient."""
    inputs = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    return tuple(i.detach() if isinstance(i, Tensor) else i for i in inputs)


def between(real, fake, eps):
    """x̂ = ε·real + (1 − ε)·fake; ε [B] or [B, 1, ...], drawn where it is None."""
    if isinstance(eps, Tensor) and eps.dim() > 1 and eps.numel() == eps.shape[0]:
        eps = eps.flatten()
    return functional.interpolate(real, fake, eps)


def uncompiled(function):
    """As torch.compiler.disable, which loads torch's compiler: only where that is at work already."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call
