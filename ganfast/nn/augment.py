"""What is done to the samples that a discriminator sees, real and generated alike: augmentation and noise."""

import torch
from torch import Tensor, nn

COLOR, TRANSLATION, CUTOUT = POLICIES = ("color", "translation", "cutout")


class Augment(nn.Module):
    """DiffAugment: images x [B, C, H, W] in [−1, 1] → the same shape, A_i x_i + b_i with a draw for each sample.

    color         y = k(s·x + (1 − s)·m) + (1 − k)·M + β, m the mean over channels of each pixel, M that over the whole
                  image: brightness β ~ U(−0.5, 0.5), saturation s ~ U(0, 2), contrast k ~ U(0.5, 1.5)
    translation   by whole pixels, up to 1/8 of each side (rounded), zeros where nothing comes from
    cutout        zeros in a window of half of each side (rounded), which may reach over the border

    ``policy`` names those wanted, between commas; they are applied in this order. In training only: eval() is the
    identity. The numbers come from torch's generator of x's device, in fp32 (fp64 for fp64), without a wait for the
    device. Differentiable twice, and by rule in ``ganfast.penalty``. Let it stand in front of D for real and for
    generated images, in D's loss and in G's. Zhao et al. 2020, arXiv:2006.10738.
    Raises ValueError for another policy and for an x of another rank.
    """

    def __init__(self, policy: str = "color,translation,cutout"):
        super().__init__()
        self.policy = tuple(name.strip() for name in policy.split(","))
        unknown = [name for name in self.policy if name not in POLICIES]
        if unknown:
            raise ValueError(f"policy: got {unknown[0]!r}, needs some of {', '.join(POLICIES)}, between commas")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if x.dim() != 4:
            raise ValueError(f"x: got shape {tuple(x.shape)}, needs [batch, channels, height, width]")
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        draws = torch.rand(7, x.shape[0], 1, 1, 1, device=x.device, dtype=wide)
        if COLOR in self.policy:
            x = _color(x, *draws[:3].to(x.dtype))
        if TRANSLATION in self.policy:
            x = _translated(x, *draws[3:5, :, 0, 0])
        if CUTOUT in self.policy:
            top, left = draws[5:, :, 0, 0]
            hole = _window(x.shape[2], top)[:, None, :, None] & _window(x.shape[3], left)[:, None, None, :]
            x = x * (~hole).to(x.dtype)
        return x

    def extra_repr(self):
        return f"policy={','.join(self.policy)!r}"


def _color(x, *draws):
    """Each of the draws ~ U(0, 1), [B, 1, 1, 1]."""
    beta, s, k = draws[0] - 0.5, 2 * draws[1], draws[2] + 0.5
    grey = x.mean(1, keepdim=True)
    return x * (k * s) + (grey * (k * (1 - s)) + (grey.mean((2, 3), keepdim=True) * (1 - k) + beta))


def _whole(draw, count):
    """U[0, 1) → a whole number in [0, count), all alike."""
    return (draw * count).long().clamp(max=count - 1)  # the product may round up to count


def _source(side, draw):
    """Where each of ``side`` pixels comes from, and whether that is within the image: [B, side]."""
    most = int(side / 8 + 0.5)
    source = torch.arange(side, device=draw.device) + (_whole(draw, 2 * most + 1) - most)
    return source.clamp(0, side - 1), (source >= 0) & (source < side)


def _translated(x, down, right):
    """Each of the draws [B, 1]."""
    (rows, from_rows), (columns, from_columns) = _source(x.shape[2], down), _source(x.shape[3], right)
    places = (rows[:, :, None] * x.shape[3] + columns[:, None, :]).flatten(1)[:, None]  # [B, 1, H·W]
    there = from_rows[:, None, :, None] & from_columns[:, None, None, :]
    moved = x.flatten(2).gather(2, places.expand(-1, x.shape[1], -1)).unflatten(2, x.shape[2:])
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        moved = moved.contiguous(memory_format=torch.channels_last)
    return moved * there.to(x.dtype)


def _window(side, draw):
    """Which of ``side`` places a window of half the side covers, its centre anywhere: draws [B, 1] → [B, side]."""
    size = int(side / 2 + 0.5)
    place = torch.arange(side, device=draw.device) + size // 2 - _whole(draw, side + 1 - size % 2)
    return (place >= 0) & (place < size)


class InstanceNoise(nn.Module):
    """x + std·decay·n, n ~ N(0, 1) for each number, in training; the identity in eval().

    ``decay`` is a 0-d buffer on the device, 1 where none is given, read at each call, so that a CUDA graph follows it:
    ``anneal(count, steps)`` sets it to max(1 − count/steps, 0), in place, and the noise fades linearly, as in the
    papers. In front of D it widens both distributions until their supports meet. Sønderby et al. 2016,
    arXiv:1610.04490; Arjovsky and Bottou 2017, arXiv:1701.04862. Raises ValueError for a negative ``std`` and for a
    ``decay`` that is no 0-d tensor.
    """

    def __init__(self, std: float = 0.1, decay: Tensor | None = None):
        super().__init__()
        if not std >= 0:
            raise ValueError(f"std: got {std}, needs 0 or more")
        if decay is not None and (decay.dim() or not decay.is_floating_point()):
            raise ValueError(f"decay: got shape {tuple(decay.shape)}, {decay.dtype}, needs one floating-point number")
        self.std = std
        self.register_buffer("decay", torch.ones(()) if decay is None else decay)

    def anneal(self, count: Tensor | float, steps: float) -> None:
        """σ = std·max(1 − count/steps, 0) from now on; ``count`` may be a 0-d tensor on the device."""
        with torch.no_grad():
            self.decay.copy_((1 - torch.as_tensor(count) / steps).clamp(min=0))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        noise = torch.randn(x.shape, dtype=x.dtype, device=x.device)  # the same numbers in either order in memory
        return x + noise * (self.std * self.decay)

    def extra_repr(self):
        return f"std={self.std}"
