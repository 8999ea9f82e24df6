"""The dtype in which sums are made."""

import torch


def sum_dtype(x: torch.Tensor) -> torch.dtype:
    """fp32, whatever the dtype of x; fp64 for fp64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def wide(x: torch.Tensor) -> torch.Tensor:
    """x in the dtype of its sums."""
    return x.to(sum_dtype(x))
