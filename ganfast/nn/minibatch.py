"""Layers that let a discriminator see the whole batch."""

import torch
from torch import nn

from ganfast import functional
from ganfast.nn.ranks import gather, ranks


def _positive(name, value):
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: got {type(value).__name__}, needs an integer")
    if value < 1:
        raise ValueError(f"{name}: got {value}, needs 1 or more")


def _together(layer) -> bool:
    """Whether the batch is that of all ranks."""
    return layer.training and not layer.local and ranks()[1] > 1


class MinibatchDiscrimination(nn.Module):
    """Appends each sample's similarity to its batch: x [B, in_features] → [B, in_features + num_kernels].

    M = x @ T as [B, num_kernels, kernel_dim]; o[i, b] = Σ_j exp(−‖M[i, b] − M[j, b]‖₁), j = i included, so every o is
    at least 1. Salimans et al. 2016, section 3.2, arXiv:1606.03498. The paper leaves the initialisation of T open; here
    T ~ N(0, 1/(kernel_dim²·in_features)): for inputs of variance 1 two samples are then about 1.1 apart in each kernel,
    e^−1.1 = 0.32, where the exponential still has a gradient (N(0, 1) puts them hundreds apart: o = 1, gradient 0).
    In training with torch.distributed the sum runs over the samples of all ranks, whose batches have one size, unless
    ``local``. Raises TypeError or ValueError for an x of another shape.
    """

    mixes_samples = True

    def __init__(self, in_features, num_kernels, kernel_dim, local=False):
        super().__init__()
        for name, value in zip(("in_features", "num_kernels", "kernel_dim"), (in_features, num_kernels, kernel_dim)):
            _positive(name, value)
        self.in_features, self.num_kernels, self.kernel_dim = in_features, num_kernels, kernel_dim
        self.local = local
        self.T = nn.Parameter(torch.empty(in_features, num_kernels * kernel_dim))
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.T, std=1 / (self.kernel_dim * self.in_features**0.5))

    def forward(self, x):
        if x.dim() != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"x: got shape {tuple(x.shape)}, needs [batch, {self.in_features}]; flatten it first")
        m = (x @ self.T).unflatten(1, (self.num_kernels, self.kernel_dim))
        others = gather(m).flatten(0, 1) if _together(self) else None
        return torch.cat([x, functional.pairwise_l1(m, others).to(x.dtype)], dim=1)

    def extra_repr(self):
        return f"in_features={self.in_features}, num_kernels={self.num_kernels}, kernel_dim={self.kernel_dim}"


class MinibatchStddev(nn.Module):
    """Appends the standard deviation over a group of samples: x [B, C, H, W] → [B, C + num_features, H, W].

    Channels are cut into num_features runs; in each, the deviation over the group's samples is averaged over the run's
    channels and over all positions, and that number fills one new channel of the group's samples. Statistics are in
    fp32. Karras et al. 2018 (progressive growing), section 3, arXiv:1710.10196.

    group_size    samples of a group; None: the whole batch. The batch is dealt like cards into n = ceil(B/group_size)
                  groups, sample i into group i mod n: sizes differ by one at most where B is no multiple
    num_features  new channels; must divide C

    A small constant under the root, 1e-8, keeps the gradient finite (it is 0) where all samples are alike.
    In training with torch.distributed the batch is that of all ranks, whose shares have one size, unless ``local``.
    Raises TypeError or ValueError that names the argument.
    """

    mixes_samples = True

    def __init__(self, group_size=4, num_features=1, local=False):
        super().__init__()
        if group_size is not None:
            _positive("group_size", group_size)
        _positive("num_features", num_features)
        self.group_size, self.num_features, self.local = group_size, num_features, local

    def forward(self, x):
        if x.dim() != 4:
            raise ValueError(f"x: got shape {tuple(x.shape)}, needs [batch, channels, height, width]")
        batch, channels, height, width = x.shape
        if channels % self.num_features:
            raise ValueError(f"x: got {channels} channels, needs a multiple of num_features={self.num_features}")
        if batch == 0:
            return x.new_empty(0, channels + self.num_features, height, width)
        everyone = gather(x).flatten(0, 1) if _together(self) else x
        deviation = self._deviation(everyone if x.dtype == torch.float64 else everyone.float())  # [all, num_features]
        if _together(self):
            deviation = deviation[ranks()[0] * batch :][:batch]
        planes = deviation.to(x.dtype)[:, :, None, None].expand(-1, -1, height, width)
        return torch.cat([x, planes], dim=1)

    def _deviation(self, x):
        batch = x.shape[0]
        groups = -(-batch // (self.group_size or batch))
        size = -(-batch // groups)  # of the largest group
        missing = size * groups - batch  # the last groups have one sample less
        dealt = nn.functional.pad(x, (0, 0) * 3 + (0, missing)).unflatten(0, (size, groups))  # [size, groups, C, H, W]
        count, real = size, None
        if missing:
            real = (torch.arange(size * groups, device=x.device) < batch).to(x.dtype)
            real = real.view(size, groups, 1, 1, 1)
            count = real.sum(0)
        difference = dealt - dealt.sum(0) / count
        if missing:
            difference = difference * real
        deviation = (difference.square().sum(0) / count + 1e-8).sqrt()  # [groups, C, H, W]
        deviation = deviation.unflatten(1, (self.num_features, -1)).mean((2, 3, 4))  # [groups, num_features]
        return deviation.repeat(size, 1)[:batch]

    def extra_repr(self):
        return f"group_size={self.group_size}, num_features={self.num_features}"
