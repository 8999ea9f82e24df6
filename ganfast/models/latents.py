"""From seeds to latent vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganfast.errors import InputError


def latents(seeds: Sequence[int], latent_dim: int, truncation: float | None = None, device="cpu") -> Tensor:
    """One latent vector per seed, [len(seeds), latent_dim] ~ N(0, 1), the same on every device and in every batch.

    ``truncation`` t > 0 draws from the normal cut off at ±t (the truncation trick of BigGAN, Brock et al. 2018,
    arXiv:1809.11096): smaller is more typical and less varied.
    """
    if truncation is not None and not truncation > 0:
        raise InputError(f"truncation must be above 0, got {truncation} (--truncation).")
    rows = torch.empty(len(seeds), latent_dim)
    for row, seed in zip(rows, seeds):
        generator = torch.Generator().manual_seed(int(seed))
        if truncation is None:
            row.normal_(generator=generator)
        else:
            nn.init.trunc_normal_(row, a=-truncation, b=truncation, generator=generator)
    return rows.to(device)
