"""Contrastive losses."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ganfast.reference.wide import wide


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """PatchNCE [B] (Park et al. 2020, arXiv:2007.15651, equation 3): each place of an image beside its other places.

        mean over s of −log (exp(q_s·k_s/τ) / Σ_j exp(q_s·k_j/τ))

    ``queries`` and ``keys`` [B, S, U] are unit vectors of the same S places of B images; the negatives of a query are
    the keys of the other places of its image. log S where nothing is told apart.
    """
    logits = wide(queries @ keys.transpose(1, 2)) / temperature  # [B, S, S]
    places = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    return F.cross_entropy(logits.transpose(1, 2), places, reduction="none").mean(1)
