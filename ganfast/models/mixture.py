"""Mixtures of generators: a latent number says which one makes a sample."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mixture(generators: Sequence[nn.Module], z: Tensor) -> Tensor:
    """z [B, n + 1] → samples [B, ...] of generators of n numbers, each of which makes an equal share.

    The last number chooses: generator ⌊K·Φ(z)⌋ of K, Φ the normal distribution function. All run on the whole batch,
    so that no shape depends on the choice.
    """
    samples = torch.stack([generator(z[:, :-1]) for generator in generators], 1)  # [B, K, ...]
    chosen = choice(z[:, -1], len(generators))
    return samples[torch.arange(len(z), device=z.device), chosen]


def choice(z: Tensor, count: int) -> Tensor:
    """int64 [B] in 0 … count − 1, equally likely where z [B] ~ N(0, 1)."""
    return (torch.special.ndtr(z) * count).long().clamp(max=count - 1)
