"""The parts of a gradient penalty that are not the critic, in plain PyTorch.

    WGAN-GP (Gulrajani et al. 2017)     φ(n) = λ·(n − 1)²          "two_sided"
    one-sided (Petzka et al. 2018)      φ(n) = λ·max(0, n − 1)²    "one_sided"
    R1, R2 (Mescheder et al. 2018)      φ(n) = λ/2·n²              "zero_centered"

P = (1/B) Σ_i φ(n_i), n_i the norm of sample i's gradient over *all* its dimensions.
"""

import torch

KINDS = ("two_sided", "one_sided", "zero_centered")


def interpolate(real, fake, epsilon):
    """x̂ = ε·x + (1 − ε)·x̃ with one ε per sample; real, fake [B, ...], epsilon [B]."""
    e = epsilon.reshape(-1, *[1] * (real.dim() - 1)).to(real.dtype)
    return e * real + (1 - e) * fake


def sample_norms(g):
    """‖g_i‖₂ over all dimensions but the first, in fp32 (fp64 for fp64): [B].

    Where a sample's gradient is zero its norm is 0 and so is the norm's derivative.
    """
    wide = g if g.dtype == torch.float64 else g.float()
    squares = wide.flatten(1).square().sum(1)
    zero = squares == 0
    return torch.where(zero, torch.zeros_like(squares), torch.where(zero, torch.ones_like(squares), squares).sqrt())


def penalty(g, weight=10.0, kind="two_sided"):
    """P, a scalar, of the gradients g [B, ...]; `weight` is λ, `kind` one of KINDS."""
    if kind == "zero_centered":
        wide = g if g.dtype == torch.float64 else g.float()
        return weight / 2 * wide.flatten(1).square().sum(1).mean()
    excess = sample_norms(g) - 1
    if kind == "one_sided":
        excess = excess.clamp(min=0)
    elif kind != "two_sided":
        raise ValueError(f"kind: got {kind!r}, needs one of {', '.join(KINDS)}")
    return weight * excess.square().mean()


def penalty_seed(g, weight=10.0, kind="two_sided"):
    """(P, v) with v = ∂P/∂g: v_i = φ'(n_i)·g_i/(B·n_i), 0 where n_i = 0; in the dtype of g."""
    with torch.enable_grad():
        leaf = g.detach().requires_grad_()
        value = penalty(leaf, weight, kind)
        (seed,) = torch.autograd.grad(value, leaf)
    return value.detach(), seed
