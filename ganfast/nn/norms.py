"""Normalisations with their activation in one operator: functional.norm_act in layers of torch's and of papers."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from ganfast import activations, functional, ops, reference
from ganfast.nn.fused_group import operators_do
from ganfast.nn.ranks import SyncBatchNorm, ranks


def norm_act(x, groups, weight, bias, moments, *rest):
    """The first result of functional.norm_act; by torch's functions where they are faster."""
    if has_torch_function_unary(x):  # a gradient penalty has rules for torch's functions: penalty/of_layers.py
        return handle_torch_function(norm_act, (x,), x, groups, weight, bias, moments, *rest)
    if not prefers_torch(x):
        return ops.norm_act.norm_act(x, weight, bias, moments, groups, *rest)[0]
    one = groups == x.shape[1] and x.shape[0] == 1  # a batch of one: see instance_norm
    return norm_act_by_torch(x, 0 if one else groups, weight, bias, moments, *rest)


def instance_norm(x, *rest):
    """F.instance_norm, with its arguments; of one sample it is F.batch_norm.

    On a CPU torch 2.13 differentiates F.instance_norm of one sample wrongly where its cotangent is channels_last, and
    F.batch_norm where one lies as that of [1, H·W, C]: an eager loop takes the operator (see prefers_torch).
    """
    return (F.batch_norm if x.shape[0] == 1 else F.instance_norm)(x, *rest)


def prefers_torch(x) -> bool:
    """Whether torch's functions are faster, or are all that works here.

    For small tensors calls from Python take longer than the work; under torch.compile on a CPU torch makes one loop of
    norm and activation. Of one sample on a CPU torch's gradients may be wrong: see instance_norm.
    """
    if torch.compiler.is_compiling():
        return x.is_cpu or torch.compiler.is_exporting()
    if x.is_cpu and x.shape[0] == 1 and operators_do():
        return False
    if is_small(x):
        return True
    return ops.norm_act.norm_act.is_plain(x.device) or not operators_do()


def is_small(x) -> bool:
    """Whether calls from Python take longer than what they save."""
    return not torch.compiler.is_compiling() and functional.is_small_norm(x)


def norm_act_by_torch(x, groups, weight, bias, moments, eps, activation, slope):
    """The first result of functional.norm_act, by torch's functions."""
    plain = [v is None or v.dim() == 1 for v in (weight, bias)]
    inside = (weight, bias) if all(plain) and (weight is None) == (bias is None) else (None, None)
    if groups == 0:
        running = (None, None) if moments is None else moments[:, 0]
        y = F.batch_norm(x, *running, *inside, moments is None, 0.0, eps)
    elif moments is not None:
        mean, var = (_against(m.repeat_interleave(x.shape[1] // groups, 1), x) for m in moments)
        y, inside = (x - mean) * (var + eps).rsqrt(), (None, None)
    elif groups == x.shape[1]:
        y = F.instance_norm(x, None, None, *inside, eps=eps)
    else:
        y = F.group_norm(x, groups, *inside, eps)
    if inside == (None, None):
        y = y if weight is None else y * _against(weight, y)
        y = y if bias is None else y + _against(bias, y)
    return reference.activate(y if y.dtype is x.dtype else y.to(x.dtype), activation, slope)


def moments_by_torch(x, groups):
    """The second result of functional.norm_act, by torch's functions."""
    wide = x if x.dtype == torch.float64 else x.float()
    rows = wide.flatten(2).transpose(0, 1).flatten(1).unsqueeze(0) if groups == 0 else wide.reshape(len(x), groups, -1)
    mean = rows.mean(2)
    return torch.stack((mean, (rows - mean.unsqueeze(2)).square().mean(2)))


def _against(v, x):
    """v [C], [N, C] or like x, to be multiplied with x."""
    return v.view(-1, *[1] * (x.dim() - 2)) if v.dim() == 1 else v.view(*v.shape, *[1] * (x.dim() - v.dim()))


class InstanceNormAct2d(nn.InstanceNorm2d):
    """act(instance_norm(x)), [N, C, H, W] or [C, H, W]: ``torch.nn.InstanceNorm2d`` and an activation.

    Arguments, keys of ``state_dict`` and running statistics are torch's; ``activation`` is one of
    ``functional.norm_act``. Raises ValueError where there is one pixel whose statistics would be taken.
    Ulyanov et al. 2016, arXiv:1607.08022.
    """

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False, device=None, dtype=None, *,
        activation="relu", negative_slope=0.2,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        activations.check(activation, negative_slope)
        self.activation, self.negative_slope = activation, negative_slope

    def forward(self, x):
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        if x.dim() != 4 or x.shape[1] != self.num_features:
            raise ValueError(f"x: got shape {tuple(x.shape)}, needs [N, {self.num_features}, H, W]")
        if self.training or not self.track_running_stats:
            check_pixels(x)
        return instance_norm_act(x, self, self.activation, self.negative_slope)

    def extra_repr(self):
        return f"{super().extra_repr()}, {words(self)}"


def instance_norm_act(x, norm, activation, slope):
    """act(norm(x)) of torch's InstanceNorm2d, with what it does to its running statistics in training."""
    affine, rest = (norm.weight, norm.bias), (norm.eps, activation, slope)
    if not norm.track_running_stats:
        return norm_act(x, x.shape[1], *affine, None, *rest)
    running, momentum = (norm.running_mean, norm.running_var), norm.momentum or 0.0  # None is 0, as torch has it
    if not norm.training:
        return norm_act(x, 0, *affine, torch.stack(running).unsqueeze(1), *rest)
    if prefers_torch(x):
        y = instance_norm(x, *running, *affine, True, momentum, norm.eps)
        return reference.activate(y, activation, slope)
    a, moments = functional.norm_act(x, x.shape[1], *affine, None, *rest)
    mean, var = moments.detach().mean(1)  # over the samples
    count = x.shape[2:].numel()
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var.dtype), momentum)
    return a


def check_pixels(x):
    if x.shape[2:].numel() == 1:
        raise ValueError(f"x: got shape {tuple(x.shape)}, needs more than one pixel to have statistics of a sample")


def words(layer) -> str:
    slope = f", negative_slope={layer.negative_slope}" if activations.ROWS[layer.activation].has_slope else ""
    return f"activation={layer.activation!r}{slope}"


class _BatchNormAct(SyncBatchNorm):
    """act(gain·x̂ + shift) with x̂ by the batch's statistics (all ranks'), gain and shift [N, C] or [N, C, H, W]."""

    def __init__(self, num_features, eps, momentum, track_running_stats, activation, negative_slope):
        super().__init__(num_features, eps, momentum, affine=False, track_running_stats=track_running_stats)
        activations.check(activation, negative_slope)
        self.activation, self.negative_slope = activation, negative_slope

    def forward(self, x, gain, shift):
        rest = self.eps, self.activation, self.negative_slope
        if not self.training and self.running_mean is not None:
            moments = torch.stack((self.running_mean, self.running_var)).unsqueeze(1)
            return norm_act(x, 0, gain, shift, moments, *rest)
        if self.training and ranks()[1] > 1:  # norm_act's statistics are one process's
            y = super().forward(x) * _against(gain, x) + _against(shift, x)
            return reference.activate(y, *rest[1:])
        if not self.training or self.running_mean is None:
            return norm_act(x, 0, gain, shift, None, *rest)
        a, moments = functional.norm_act(x, 0, gain, shift, None, *rest)
        self._update(*moments.detach()[:, 0], x.numel() // x.shape[1])
        return a

    def extra_repr(self):
        return f"{super().extra_repr()}, {words(self)}"


class ConditionalBatchNormAct2d(_BatchNormAct):
    """act(γ_y·x̂ + β_y), x [N, C, H, W], y int64 [N]: BatchNorm2d whose scale and shift are those of a sample's class.

    γ and β are ``gain`` and ``shift``, ``nn.Embedding`` of [num_classes, C], which begin as 1 and 0; the other
    arguments and the running statistics are those of ``torch.nn.BatchNorm2d``. Several processes share statistics.
    Dumoulin et al. 2017, arXiv:1610.07629; de Vries et al. 2017, arXiv:1707.00683.
    """

    def __init__(
        self, num_features, num_classes, eps=1e-5, momentum=0.1, track_running_stats=True, *, activation="relu",
        negative_slope=0.2,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, track_running_stats, activation, negative_slope)
        self.gain, self.shift = (nn.Embedding(num_classes, num_features) for _ in range(2))
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x, y):
        return super().forward(x, self.gain(y), self.shift(y))


class AdaINAct(nn.Module):
    """act(σ·(x − μ(x))/√(var(x) + eps) + m), x [N, C, H, W]: adaptive instance normalisation.

    ``layer(x, style)``: m and σ² are means and variances (biased, plus eps) of the channels of style [N, C, H', W'].
    ``layer(x, scale, shift)``: they are scale and shift [N, C], which a network makes. No parameters.
    Huang and Belongie 2017, arXiv:1703.06868.
    """

    def __init__(self, eps=1e-5, *, activation=None, negative_slope=0.2):
        super().__init__()
        activations.check(activation, negative_slope)
        self.eps, self.activation, self.negative_slope = eps, activation, negative_slope

    def forward(self, x, scale, shift=None):
        check_pixels(x)
        if shift is None:
            style = scale if scale.dtype == torch.float64 else scale.float()
            var, shift = torch.var_mean(style, (2, 3), correction=0)
            scale = (var + self.eps).sqrt()
        return norm_act(x, x.shape[1], scale, shift, None, self.eps, self.activation, self.negative_slope)

    def extra_repr(self):
        return f"eps={self.eps}, {words(self)}"


class SPADEAct(nn.Module):
    """act((1 + γ)·x̂ + β) with γ and β of each pixel, from a map: spatially-adaptive normalisation.

    x [N, C, H, W], segmentation [N, label_channels, H', W'], such as one channel a class. It is resized to H×W by its
    nearest pixels; a convolution to ``hidden`` features with ReLU, then one each give γ and β [N, C, H, W]. x̂ is x
    normalised without parameters by the ``statistics`` of the "batch" (with running ones for evaluation, as
    ``torch.nn.BatchNorm2d``) or of each "instance". Several processes share those of the batch.
    Park et al. 2019, arXiv:1903.07291.
    """

    def __init__(
        self, num_features, label_channels, hidden=128, kernel_size=3, statistics="batch", eps=1e-5, momentum=0.1, *,
        activation="relu", negative_slope=0.2,
    ):  # fmt: skip
        super().__init__()
        if statistics not in ("batch", "instance"):
            raise ValueError(f"statistics: got {statistics!r}, needs batch or instance")
        if statistics == "batch":
            self.norm = _BatchNormAct(num_features, eps, momentum, True, activation, negative_slope)
        else:
            self.norm = AdaINAct(eps, activation=activation, negative_slope=negative_slope)
        padding = kernel_size // 2
        self.shared = nn.Conv2d(label_channels, hidden, kernel_size, padding=padding)
        self.gamma, self.beta = (nn.Conv2d(hidden, num_features, kernel_size, padding=padding) for _ in range(2))

    def forward(self, x, segmentation):
        if segmentation.shape[2:] != x.shape[2:]:
            segmentation = F.interpolate(segmentation, size=x.shape[2:], mode="nearest")
        h = self.shared(segmentation).relu()
        return self.norm(x, 1 + self.gamma(h), self.beta(h))
