"""Losses of rankings."""

import torch.nn.functional as F
from torch import Tensor


def bayesian_personalized_ranking(
    scores: Tensor, chosen: Tensor, others: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(mean of −log σ(s_ik − s_jk) over pairs of items i, j and users k; share of these pairs with s_ik > s_jk).

    Scalars; ``scores`` [B, K] of B items for K users; i where ``chosen`` [B, K], bool, and j where ``others`` is true;
    0 without such pairs (BPR, Rendle et al. 2009, arXiv:1205.2618). Memory O(B²·K).
    """
    margins = scores.unsqueeze(1) - scores.unsqueeze(0)  # [i, j, k]
    pairs = chosen.unsqueeze(1) & others.unsqueeze(0)
    count = pairs.sum().clamp_min(1)
    return (F.softplus(-margins) * pairs).sum() / count, ((margins.detach() > 0) & pairs).sum() / count
