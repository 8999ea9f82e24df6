"""Losses of style transfer on a network's activations (Gatys et al. 2015, arXiv:1508.06576)."""

import torch.nn.functional as F
from torch import Tensor


def gram(maps: Tensor) -> Tensor:
    """[B, C, H, W] → [B, C, C]: Σ over places of a_i·a_j, over how many places there are."""
    places = maps.flatten(2)
    return places @ places.transpose(1, 2) / places.shape[2]


def style_loss(maps: list[Tensor], grams: list[Tensor]) -> Tensor:
    """Mean over layers of ¼·mean over i, j of (Gram(maps)_ij − gram_ij)²: the paper's E_l with equal weights."""
    return sum(F.mse_loss(gram(own), wanted) for own, wanted in zip(maps, grams)) / (4 * len(grams))
