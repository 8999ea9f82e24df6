"""Points on the lines between real and fake samples, in plain PyTorch (Gulrajani et al. 2017, algorithm 1)."""

import torch


def interpolate(real, fake, epsilon):
    """x̂ = ε·x + (1 − ε)·x̃ with one ε per sample; real, fake [B, ...], epsilon [B]; an absent (None) side is zero.

    In fp32 (fp64 for fp64), rounded once to the dtype of the samples.
    """
    x = fake if real is None else real
    e = epsilon.reshape(-1, *[1] * (x.dim() - 1))
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    if fake is None:
        return (e * real.to(wide)).to(x.dtype)
    if real is None:
        return ((1 - e) * fake.to(wide)).to(x.dtype)
    return (e * real.to(wide) + (1 - e) * fake.to(wide)).to(x.dtype)
