"""Weights of the data for the next component of a mixture (AdaGAN, Tolstikhin et al. 2017, arXiv:1701.02386)."""

import torch
from torch import Tensor


def boosting_weights(ratio: Tensor, beta: float, pool: Tensor | None = None) -> Tensor:
    """w_i = max(0, λ* − (1 − β)·h_i)/β of samples [B] of the data: what a new component of share β is to learn.

    ``ratio`` [B] has h_i = p_mixture(x_i)/p_data(x_i) ≥ 0 of the mixture so far; β lies in (0, 1]. λ* makes the mean
    of w over ``pool`` [N] 1, by default ``ratio`` itself: with h sorted it is min_k (N·β + (1 − β)·Σ_{i≤k} h_i)/k, as
    Σ max(0, λ − a_i) is the largest of all sums of λ − a_i. Infinite ratios get 0. Theorem 1 and section 3.2 there.
    """
    pool = ratio if pool is None else pool
    held = (1 - beta) * torch.sort(pool).values
    counts = torch.arange(1, len(held) + 1, device=held.device, dtype=held.dtype)
    level = ((len(held) * beta + held.cumsum(0)) / counts).min()
    return (level - (1 - beta) * ratio).relu() / beta
