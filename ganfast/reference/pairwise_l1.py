"""Minibatch discrimination's similarities (Salimans et al. 2016, section 3.2) in plain PyTorch."""

import torch


def pairwise_l1(m):
    """o[i, b] = Σ_j exp(−‖M[i, b] − M[j, b]‖₁) for M of shape [B, nk, kd]; returns [B, nk].

    The sum runs over all j, j = i included, as in the paper: every entry has the constant term exp(0) = 1.
    The subgradient of |·| at 0 is 0. This form holds a B×B×nk×kd tensor.
    """
    distance = (m[:, None] - m[None, :]).abs().sum(-1)  # [B, B, nk]
    return torch.exp(-distance).sum(1)
