"""What layers of several processes (torch.distributed) know of each other's batches."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


def ranks() -> tuple[int, int]:
    """(this process's rank, how many there are); (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _Sum(torch.autograd.Function):
    """Σ over ranks of x; what each rank does to it counts for all, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, g):
        return _Sum.apply(g)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        out = x.new_empty(dist.get_world_size(), *x.shape)
        dist.all_gather(list(out), x.contiguous())
        return out

    @staticmethod
    def backward(ctx, g):
        return _Sum.apply(g)[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """x of every rank, stacked: [ranks, *x.shape], all x of one shape; differentiable to any order.

    Each rank's gradient is that of the sum of all ranks' losses. One process has a stack of one.
    """
    return x.unsqueeze(0) if ranks()[1] == 1 else _Gather.apply(x)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """``torch.nn.BatchNorm1d/2d/3d`` whose statistics in training are those of all ranks' batches, of one size.

    x [N, C, ...] on any device; arguments and state_dict keys are torch's. Means and variances are gathered in one
    exchange of 2·C numbers and merged: var = mean(var_r) + mean((mean_r − mean)²), biased. Made of torch's operators
    and differentiable to any order, which ``torch.nn.SyncBatchNorm`` is not; on one rank it is torch's BatchNorm.
    """

    def _check_input_dim(self, x):
        if x.dim() < 2:
            raise ValueError(f"x: got shape {tuple(x.shape)}, needs [batch, channels, ...]")

    def forward(self, x):
        self._check_input_dim(x)
        if not self.training or ranks()[1] == 1:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        others = [d for d in range(x.dim()) if d != 1]
        var, mean = torch.var_mean(wide, others, correction=0)
        means, variances = gather(torch.stack([mean, var])).unbind(1)  # [ranks, C] each
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        self._update(mean.detach(), var.detach(), len(means) * x.numel() // x.shape[1])
        shape = (1, -1, *[1] * (x.dim() - 2))
        gain = torch.rsqrt(var + self.eps) if self.weight is None else self.weight * torch.rsqrt(var + self.eps)
        shift = -mean * gain if self.bias is None else self.bias - mean * gain
        return (wide * gain.view(shape) + shift.view(shape)).to(x.dtype)

    def _update(self, mean, var, count):
        if self.running_mean is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), momentum)


def synchronize(module: nn.Module) -> nn.Module:
    """Turn every BatchNorm1d, 2d and 3d within ``module`` into a :class:`SyncBatchNorm`, in place; keys stay."""
    for layer in module.modules():
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            layer.__class__ = SyncBatchNorm
    return module
