"""Losses of energies, which are low for real samples (Zhao et al. 2017, arXiv:1609.03126)."""

from torch import Tensor
from torch.nn import functional as F

from ganfast.reference.wide import wide


def discriminator_energy(real_energy: Tensor, fake_energy: Tensor, margin: float) -> Tensor:
    """E[E(x)] + E[max(0, m − E(G(z)))], a scalar, over energies [B] ≥ 0; ``margin`` m is in units of the energy."""
    return wide(real_energy).mean() + (margin - wide(fake_energy)).relu().mean()


def generator_energy(fake_energy: Tensor) -> Tensor:
    """E[E(G(z))], a scalar, over energies [B]."""
    return wide(fake_energy).mean()


def pulling_away(representations: Tensor) -> Tensor:
    """1/(B·(B−1))·Σ_i Σ_{j≠i} cos²(s_i, s_j), a scalar, of the representations s [B, n] of generated samples.

    In [0, 1]: 0 where they are orthogonal, 1 where they are parallel. ``ValueError`` for fewer than two.
    """
    count = len(representations)
    if count < 2:
        raise ValueError(f"representations: got {count} of them, needs 2 at least, as it compares pairs")
    s = F.normalize(wide(representations).flatten(1), dim=1)
    return (s @ s.T).triu(1).square().sum() * (2 / (count * (count - 1)))
