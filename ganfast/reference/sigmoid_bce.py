"""Sigmoid cross-entropy of the real and the fake side, and its two derivatives, in plain PyTorch.

    loss = mean(softplus(x) − t·x) over the real logits x with target t, plus the same over the fake ones.

Goodfellow et al. 2014 (targets 1 and 0); one-sided smoothing, real target 0.9: Salimans et al. 2016, section 3.4.
Sums, and the loss itself, are in fp32 (fp64 for fp64 logits).
"""

import torch
import torch.nn.functional as F

from ganfast.reference.wide import wide


def sigmoid_bce(real, fake, real_target=1.0, fake_target=0.0):
    """The loss, a scalar; either side may be None."""
    loss = 0
    for x, t in ((real, real_target), (fake, fake_target)):
        if x is not None:
            x = wide(x)
            # softplus(x) − t·x = −t·log σ(x) − (1 − t)·log σ(−x): no large terms that cancel, finite for finite x
            loss = loss - (t * F.logsigmoid(x) + (1 - t) * F.logsigmoid(-x)).mean()
    return loss


def sigmoid_bce_backward(g, real, fake, real_target=1.0, fake_target=0.0):
    """g·(σ(x) − t)/n of each side, in the dtype of its logits; None for an absent side."""

    def side(x, t):
        if x is None:
            return None
        w = wide(x)
        residual = (1 - t) * torch.sigmoid(w) - t * torch.sigmoid(-w)
        return (g * residual / max(x.numel(), 1)).to(x.dtype)

    return side(real, real_target), side(fake, fake_target)


def sigmoid_bce_double_backward(c_real, c_fake, g, real, fake, real_target=1.0, fake_target=0.0):
    """From cotangents c of the backward's results: those of g, Σ c·(σ(x) − t)/n, and of x, c·g·σ'(x)/n."""
    dg = torch.zeros_like(g)
    dx = []
    for c, x, t in ((c_real, real, real_target), (c_fake, fake, fake_target)):
        if x is None:
            dx.append(None)
            continue
        w, n = wide(x), max(x.numel(), 1)
        dg = dg + (wide(c) * ((1 - t) * torch.sigmoid(w) - t * torch.sigmoid(-w))).sum() / n
        dx.append((wide(c) * g * torch.sigmoid(w) * torch.sigmoid(-w) / n).to(x.dtype))
    return dg, *dx
