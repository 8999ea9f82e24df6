"""What a critic returns."""

import torch
from torch import Tensor

from ganfast.errors import NonFiniteError
from ganfast.ops._registry import launches


def first(result):
    """Of several results the scores: the first."""
    while isinstance(result, (tuple, list)) and len(result):
        result = result[0]
    return result


def check_scores(result) -> Tensor:
    """A critic's scores: floating, and on the CPU finite."""
    scores = first(result)
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise TypeError(f"critic: returned {type(scores).__name__}, needs scores, a floating-point tensor")
    waits = scores.device.type == "cpu" and not launches(scores.device) and not torch.compiler.is_compiling()
    if waits and not bool(scores.detach().isfinite().all()):
        raise NonFiniteError("critic: returned a value that is not finite; look at its weights and its input")
    return scores


def mean(scores: Tensor) -> Tensor:
    return scores.mean(dtype=torch.float64 if scores.dtype == torch.float64 else torch.float32)
