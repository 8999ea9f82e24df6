"""Gradient penalties by torch's double backward, as people write them: where the sweeps do not serve."""

import torch
from torch import Tensor

from ganfast import functional
from ganfast.ops import _checks
from ganfast.penalty.scores import check_scores


def penalty(critic, x: Tensor, phi: tuple, inputs: tuple):
    """(P, norms) at x."""
    derived = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        total = check_scores(critic(x, *inputs))
        total = total.sum(dtype=_checks.sum_dtype(total))
        (g,) = torch.autograd.grad(total, x, create_graph=derived)
        found, norms, _ = functional.gradient_penalty_terms(g, *phi)
    return found if derived else found.detach(), norms.detach()


def aside(loss, critic) -> None:
    """The gradients are made, and dropped."""
    if loss.requires_grad:
        torch.autograd.grad(loss, [p for p in critic.parameters() if p.requires_grad], allow_unused=True)
