"""Entropies of predicted classes, in nats (Springenberg 2016, arXiv:1511.06390)."""

import math

from torch import Tensor

from ganfast.reference.wide import wide


def conditional_entropy(logits: Tensor) -> Tensor:
    """E_x[H(p(y|x))], a scalar in [0, log K], of logits [B, K]: how undecided each single prediction is."""
    log_p = wide(logits).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


def marginal_entropy(logits: Tensor) -> Tensor:
    """H(E_x[p(y|x)]), a scalar in [0, log K], of logits [B, K]: how evenly the batch uses the classes."""
    log_mean = wide(logits).log_softmax(1).logsumexp(0) - math.log(len(logits))
    return -(log_mean.exp() * log_mean).sum()
