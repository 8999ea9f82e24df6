"""Random critics as people write them, each judged by plain double backward.

python tests/penalty/random_critics.py --count 2000  # seeds 0 to 1999: failures with their seed, then the paths taken
python tests/penalty/random_critics.py --first 17    # one critic, described and judged

``build(seed, attempt)`` makes the same critic each time; ``find(seed)`` says which attempt plain torch can derive twice
far enough from kinks that rounding in fp32 decides nothing.
"""

import argparse
import collections
import contextlib
import gc
import random
import time
import traceback
import types
import warnings
import weakref

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ganfast import functional, fuse, penalty
from ganfast import nn as gnn

SIDE = 8  # of images


class Do(nn.Module):
    """A module whose forward is ``body(self, x)`` and that holds what the body reads."""

    def __init__(self, body, **held):
        super().__init__()
        self.body = body
        for name, value in held.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x):
        return self.body(self, x)


def number(value):
    return nn.Parameter(torch.tensor(float(value)))


def weights(*shape):
    return nn.Parameter(0.5 * torch.randn(shape))


# --- activations: at any shape ----------------------------------------------------------------------------------------


class LeakyByHand(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, 0.2 * x)


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


ACTIVATIONS = {
    "ReLU": lambda: nn.ReLU(),
    "ReLU in place": lambda: nn.ReLU(inplace=True),
    "F.relu": lambda: Do(lambda m, x: F.relu(x)),
    "F.relu in place": lambda: Do(lambda m, x: F.relu(x, inplace=True)),
    "torch.relu": lambda: Do(lambda m, x: torch.relu(x)),
    ".relu": lambda: Do(lambda m, x: x.relu()),
    ".relu_": lambda: Do(lambda m, x: x.relu_()),
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "LeakyReLU in place": lambda: nn.LeakyReLU(0.1, inplace=True),
    "F.leaky_relu": lambda: Do(lambda m, x: F.leaky_relu(x, negative_slope=0.2)),
    "F.leaky_relu_": lambda: Do(lambda m, x: F.leaky_relu_(x, 0.2)),
    "leaky by where": LeakyByHand,
    "leaky of a tensor": lambda: Do(lambda m, x: F.leaky_relu(x, m.alpha.item()), alpha=torch.tensor(0.3)),
    "ELU": lambda: nn.ELU(),
    "ELU in place": lambda: nn.ELU(inplace=True),
    "F.elu": lambda: Do(lambda m, x: F.elu(x, 0.5)),
    "SELU": lambda: nn.SELU(),
    "F.selu in place": lambda: Do(lambda m, x: F.selu(x, inplace=True)),
    "CELU": lambda: nn.CELU(0.7),
    "SiLU": lambda: nn.SiLU(),
    "SiLU in place": lambda: nn.SiLU(inplace=True),
    "F.silu": lambda: Do(lambda m, x: F.silu(x)),
    "swish by hand": Swish,
    "GELU": lambda: nn.GELU(),
    "GELU tanh": lambda: nn.GELU(approximate="tanh"),
    "F.gelu": lambda: Do(lambda m, x: F.gelu(x)),
    "Softplus": lambda: nn.Softplus(),
    "F.softplus": lambda: Do(lambda m, x: F.softplus(x, 2.0)),
    "Tanh": lambda: nn.Tanh(),
    ".tanh": lambda: Do(lambda m, x: x.tanh()),
    ".tanh_": lambda: Do(lambda m, x: x.tanh_()),
    "Sigmoid": lambda: nn.Sigmoid(),
    ".sigmoid": lambda: Do(lambda m, x: x.sigmoid()),
    ".sigmoid_": lambda: Do(lambda m, x: x.sigmoid_()),
    "F.sigmoid": lambda: Do(lambda m, x: torch.sigmoid(x)),
    "Hardswish": lambda: nn.Hardswish(),
    "F.hardswish": lambda: Do(lambda m, x: F.hardswish(x)),
    "Hardtanh": lambda: nn.Hardtanh(),
    "ReLU6": lambda: nn.ReLU6(),
    "Threshold": lambda: nn.Threshold(0.1, -0.2),
    "F.threshold in place": lambda: Do(lambda m, x: F.threshold(x, 0.1, 0.0, True)),
    "PReLU": lambda: nn.PReLU(),
    "F.prelu": lambda: Do(lambda m, x: F.prelu(x, m.slope), slope=nn.Parameter(torch.tensor([0.3]))),
    "Mish": lambda: nn.Mish(),
    "Mish in place": lambda: nn.Mish(inplace=True),
    "LogSigmoid": lambda: nn.LogSigmoid(),
    "Softsign": lambda: nn.Softsign(),
    "LogSoftmax": lambda: nn.LogSoftmax(dim=1),
    "F.log_softmax": lambda: Do(lambda m, x: F.log_softmax(x, 1)),
    "Softmax": lambda: Do(lambda m, x: 4 * torch.softmax(x, dim=1)),
    "F.normalize": lambda: Do(lambda m, x: 3 * F.normalize(x, dim=1)),
    "atan": lambda: Do(lambda m, x: torch.atan(x)),
    "Softshrink": lambda: nn.Softshrink(0.1),
    "sin": lambda: Do(lambda m, x: x.sin()),
    "RReLU, evaluation": lambda: nn.RReLU().eval(),
    "Tanhshrink": lambda: nn.Tanhshrink(),
    "clamp": lambda: Do(lambda m, x: x.clamp(min=-1.0)),
    "F.logsigmoid": lambda: Do(lambda m, x: F.logsigmoid(x)),
    "square": lambda: Do(lambda m, x: x + 0.2 * x**2),
    "abs": lambda: Do(lambda m, x: x.abs()),
    "scaled leaky": lambda: Do(lambda m, x: F.leaky_relu(x, 0.2) * 2**0.5),
    "maxout": lambda: Do(lambda m, x: torch.max(x, 0.3 * x)),
    "clamp_": lambda: Do(lambda m, x: x.clamp_(-1.5, 1.5)),
}


# --- layers with weights and norms, at [B, c, s, s] and at [B, c] -----------------------------------------------------


def standardised(m, x):
    w = m.conv.weight
    w = w - w.mean(dim=(1, 2, 3), keepdim=True)
    return F.conv2d(x, w / (w.std(dim=(1, 2, 3), keepdim=True) + 1e-5), m.conv.bias, padding=1)


def by_power_iteration(m, x):
    """The critic's own spectral norm; u is the first singular vector already."""
    w = m.layer.weight.flatten(1)
    with torch.no_grad():
        v = F.normalize(w.t() @ m.own_u, dim=0)
        u = F.normalize(w @ v, dim=0)
        m.own_u.copy_(u)
    sigma = torch.dot(u, w @ v)
    weight = m.layer.weight / sigma
    return F.conv2d(x, weight, m.layer.bias, padding=1) if x.dim() == 4 else F.linear(x, weight, m.layer.bias)


parametrizations = nn.utils.parametrizations


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def old(wrap, layer):
    with quiet():  # torch deprecates it
        return wrap(layer)


def conv3(a, b, **more):
    return nn.Conv2d(a, b, 3, padding=1, **more)


CONVOLUTIONS = {
    "Conv2d": lambda c: conv3(c, c),
    "Conv2d without bias": lambda c: conv3(c, c, bias=False),
    "1×1": lambda c: nn.Conv2d(c, c, 1),
    "grouped": lambda c: conv3(c, c, groups=2),
    "depthwise": lambda c: conv3(c, c, groups=c),
    "dilated": lambda c: nn.Conv2d(c, c, 3, padding=2, dilation=2),
    "reflecting": lambda c: conv3(c, c, padding_mode="reflect"),
    "same": lambda c: nn.Conv2d(c, c, 3, padding="same"),
    "transposed": lambda c: nn.ConvTranspose2d(c, c, 3, padding=1),
    "spectral norm": lambda c: parametrizations.spectral_norm(conv3(c, c)),
    "old spectral norm": lambda c: nn.utils.spectral_norm(conv3(c, c)),
    "weight norm": lambda c: parametrizations.weight_norm(conv3(c, c)),
    "old weight norm": lambda c: old(nn.utils.weight_norm, conv3(c, c)),
    "standardised": lambda c: Do(standardised, conv=conv3(c, c)),
    "own spectral norm": lambda c: Do(by_power_iteration, layer=conv3(c, c), own_u=torch.randn(c)),
    "equalised": lambda c: Do(
        lambda m, x: F.conv2d(x, m.w * m.scale, m.b, padding=1), w=weights(c, c, 3, 3), b=weights(c), scale=0.4
    ),
    "equalised by a module": lambda c: Do(
        lambda m, x: m.conv(x * m.scale) + m.b.view(1, -1, 1, 1), conv=conv3(c, c, bias=False), b=weights(c), scale=1.3
    ),
    "F.conv2d": lambda c: Do(lambda m, x: F.conv2d(x, m.w, None, 1, 1), w=weights(c, c, 3, 3)),
    "F.pad": lambda c: Do(lambda m, x: m.conv(F.pad(x, (1, 1, 1, 1), mode="reflect")), conv=nn.Conv2d(c, c, 3)),
    "torch.conv2d": lambda c: Do(lambda m, x: torch.conv2d(x, m.w, m.b), w=weights(c, c, 1, 1), b=weights(c)),
    "separable": lambda c: nn.Sequential(conv3(c, c, groups=c, bias=False), nn.Conv2d(c, c, 1)),
}

LINEARS = {
    "Linear": lambda c: nn.Linear(c, c),
    "Linear without bias": lambda c: nn.Linear(c, c, bias=False),
    "spectral norm": lambda c: parametrizations.spectral_norm(nn.Linear(c, c)),
    "old spectral norm": lambda c: nn.utils.spectral_norm(nn.Linear(c, c)),
    "weight norm": lambda c: parametrizations.weight_norm(nn.Linear(c, c)),
    "old weight norm": lambda c: old(nn.utils.weight_norm, nn.Linear(c, c)),
    "own spectral norm": lambda c: Do(by_power_iteration, layer=nn.Linear(c, c), own_u=torch.randn(c)),
    "equalised": lambda c: Do(lambda m, x: F.linear(x, m.w * 0.4, bias=m.b * 0.1), w=weights(c, c), b=weights(c)),
    "matmul": lambda c: Do(lambda m, x: x @ m.w + m.b, w=weights(c, c), b=weights(c)),
    "torch.addmm": lambda c: Do(lambda m, x: torch.addmm(m.b, x, m.w), w=weights(c, c), b=weights(c)),
    "weight standardised": lambda c: Do(
        lambda m, x: F.linear(x, (m.w - m.w.mean(1, keepdim=True)) / m.w.std(1, keepdim=True)), w=weights(c, c)
    ),
}


def functional_batch_norm(m, x):
    return F.batch_norm(x, m.mean, m.variance, m.gain, m.shift, training=m.training)


def virtual_batch_norm(m, x):
    """Statistics of a reference batch kept in buffers, mixed with those of the sample itself."""
    share = 1.0 / (m.count.item() + 1.0)
    mean = share * x.mean((2, 3), keepdim=True) + (1 - share) * m.mean.view(1, -1, 1, 1)
    square = share * (x * x).mean((2, 3), keepdim=True) + (1 - share) * m.square.view(1, -1, 1, 1)
    return (x - mean) / torch.sqrt(square - mean**2 + 1.0)


def own_batch_norm(m, x):
    mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1e-5) * m.gain.view(1, -1, 1, 1)


def of_channels(m, x):
    return m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def fused(module):
    fuse(module)
    return module


def batch_stats(c):
    return {"mean": torch.randn(c), "variance": 1 + torch.rand(c), "gain": weights(c), "shift": weights(c)}


NORMS = {
    "none": lambda c, s: nn.Identity(),
    "BatchNorm2d": lambda c, s: nn.BatchNorm2d(c),
    "BatchNorm2d, evaluation": lambda c, s: nn.BatchNorm2d(c).eval(),
    "BatchNorm2d without statistics": lambda c, s: nn.BatchNorm2d(c, track_running_stats=False),
    "BatchNorm2d, not affine": lambda c, s: nn.BatchNorm2d(c, 0.8, affine=False),
    "BatchNorm2d, cumulative": lambda c, s: nn.BatchNorm2d(c, momentum=None),
    "F.batch_norm": lambda c, s: Do(functional_batch_norm, **batch_stats(c)),
    "F.batch_norm, evaluation": lambda c, s: Do(functional_batch_norm, **batch_stats(c)).eval(),
    "batch norm by hand": lambda c, s: Do(own_batch_norm, gain=weights(c)),
    "virtual batch norm": lambda c, s: Do(
        virtual_batch_norm, mean=0.1 * torch.randn(c), square=1 + torch.rand(c), count=torch.tensor(3.0)
    ),
    "InstanceNorm2d": lambda c, s: nn.InstanceNorm2d(c),
    "InstanceNorm2d, affine": lambda c, s: nn.InstanceNorm2d(c, affine=True),
    "InstanceNorm2d with statistics": lambda c, s: nn.InstanceNorm2d(c, affine=True, track_running_stats=True),
    "F.instance_norm": lambda c, s: Do(lambda m, x: F.instance_norm(x)),
    "InstanceNormAct2d": lambda c, s: gnn.InstanceNormAct2d(c, affine=True, activation="leaky_relu"),
    "fused InstanceNorm2d": lambda c, s: fused(nn.Sequential(nn.InstanceNorm2d(c), nn.SiLU())),
    "norm_act": lambda c, s: Do(
        lambda m, x: functional.norm_act(x, 2, m.gain, None, activation="tanh")[0], gain=weights(c)
    ),
    "GroupNorm": lambda c, s: nn.GroupNorm(2, c),
    "F.group_norm": lambda c, s: Do(lambda m, x: F.group_norm(x, 2, m.gain), gain=weights(c)),
    "GroupNorm of one": lambda c, s: nn.GroupNorm(1, c),
    "LayerNorm": lambda c, s: nn.LayerNorm([c, s, s]),
    "LayerNorm of channels": lambda c, s: Do(of_channels, norm=nn.LayerNorm(c)),
    "F.layer_norm": lambda c, s: Do(lambda m, x: F.layer_norm(x, x.shape[1:])),
    "LayerNorm of rows": lambda c, s: nn.LayerNorm(s),
    "RMSNorm": lambda c, s: nn.RMSNorm([c, s, s]),
    "RMSNorm of channels": lambda c, s: Do(of_channels, norm=nn.RMSNorm(c, eps=1e-3)),
    "LocalResponseNorm": lambda c, s: nn.LocalResponseNorm(2),
    "pixel norm": lambda c, s: Do(lambda m, x: x * torch.rsqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-2)),
    "std": lambda c, s: Do(lambda m, x: (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 0.1)),
    "var": lambda c, s: Do(lambda m, x: x / (x.var(1, keepdim=True) + 0.5).sqrt()),
    "F.normalize": lambda c, s: Do(lambda m, x: F.normalize(x, p=2, dim=1) * m.gain, gain=number(2)),
    "Dropout2d of 0": lambda c, s: nn.Dropout2d(0.0),
    "Dropout, evaluation": lambda c, s: nn.Dropout(0.5).eval(),
}

FLAT_NORMS = {
    "none": lambda c: nn.Identity(),
    "BatchNorm1d": lambda c: nn.BatchNorm1d(c),
    "BatchNorm1d, evaluation": lambda c: nn.BatchNorm1d(c).eval(),
    "BatchNorm1d without statistics": lambda c: nn.BatchNorm1d(c, track_running_stats=False),
    "LayerNorm": lambda c: nn.LayerNorm(c),
    "BatchNorm1d, eps": lambda c: nn.BatchNorm1d(c, 0.8),
    "LayerNorm, not affine": lambda c: nn.LayerNorm(c, elementwise_affine=False),
    "RMSNorm": lambda c: nn.RMSNorm(c),
    "GroupNorm": lambda c: nn.GroupNorm(2, c),
    "F.batch_norm": lambda c: Do(functional_batch_norm, **batch_stats(c)),
    "LayerNorm by hand": lambda c: Do(lambda m, x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-2)),
    "F.normalize": lambda c: Do(lambda m, x: 2 * F.normalize(x)),
    "Dropout of 0": lambda c: nn.Dropout(0.0),
}


# --- constructs of forwards -------------------------------------------------------------------------------------------


def swaps_halves(m, x):
    a, b = x.chunk(2, 1)
    return torch.cat([b * a.sigmoid(), a], 1)


def splits(m, x):
    a, b = torch.split(x, x.size(1) // 2, dim=1)
    return torch.cat((a + b.tanh(), b), dim=1)


def unbinds(m, x):
    return torch.stack([part * (1 + i / 4) for i, part in enumerate(x.unbind(1))], 1)


def flattens_by_len(m, x):
    return x.reshape(len(x), -1).view(x.shape) / len(x) ** 0.5


def named_sizes(m, x):
    size = x.shape
    batch, rest = size[0], size[1:]
    return x.view(batch, -1).mul(0.9).view(batch, *rest)


def adds_to_itself(m, x):
    h = m.layer(x)
    h += x
    return h


def relu_over_the_shortcut(m, x):
    h = m.act(x)
    return m.layer(h) + x


def relu__over_the_shortcut(m, x):
    x = m.layer(x)
    h = x
    h.relu_()
    return 0.5 * x + m.layer(h)


def scales_a_view(m, x):
    h = m.layer(x)
    h.view(h.size(0), -1).mul_(0.7)
    return h + 0.1 * x


def scales_a_part(m, x):
    h = m.layer(x)
    h[:, :2].mul_(2.0)
    h[:, 1] += 0.3
    return h


def writes_a_part(m, x):
    h = m.layer(x)
    h[:, 0] = h[:, 1].tanh()
    return h


def fills_in(m, x):
    out = torch.zeros_like(x)
    out[:, ::2] = x[:, 1::2]
    out[:, 1::2] = x[:, ::2].sigmoid()
    return out


def divides_by_a_constant(m, x):
    with torch.no_grad():
        scale = x.abs().mean() + 0.5
    return x / scale


def masks(m, x):
    with torch.no_grad():
        mask = (x > 0.1).type_as(x)
    return x * mask + 0.3 * x


def stops(m, x):
    return x * x.detach().sigmoid() + 0.5 * x.detach()


def without_autocast(m, x):
    with torch.autocast("cpu", enabled=False):
        return m.layer(x.to(m.dtype_of.dtype))


def fades_in(m, x):
    if m.alpha < 1:
        return (1 - m.alpha) * x + m.alpha * m.layer(x)
    return m.layer(x)


def by_options(m, x):
    h = m.layer(x) * m.opt.beta
    if m.opt.twice:
        h = m.layer(h)
    return h


def asks_everything(m, x):
    assert x.dim() == len(x.shape) and torch.is_tensor(x)
    if x.is_cuda and x.shape[0] > 1:
        return x
    if m.training or x.size(0) > 0:
        x = m.layer(x)
    return x if isinstance(x, torch.Tensor) else x[0]


def by_getattr(m, x):
    for i in range(m.count):
        x = getattr(m, f"layer{i}")(x)
    return x


def counts_and_keeps(m, x):
    m.calls += 1
    m.features = m.layer(x)
    return m.features


def counts_in_python(m, x):
    m.seen = getattr(m, "seen", 0) + 1
    return m.layer(x)


def converts(m, x):
    h = m.layer(x.type_as(m.layer.weight))
    return h.contiguous().clone() + h.double().mean(1, keepdim=True).to(h.dtype)


def pads_with_zeros(m, x):
    zeros = x.new_zeros(x.size(0), 2, *x.shape[2:])
    return torch.cat([x, zeros], 1)[:, 1 : 1 + x.size(1)] + x


def shortens_by_pads(m, x):
    ones = torch.ones(x.shape[0], 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    return m.layer(torch.cat([x, ones], 1)[:, : x.size(1)]) + ones


def wheres(m, x):
    return torch.where(x > 0.2, x.tanh(), 0.5 * x)


def expands(m, x):
    return (x.unsqueeze(1).expand(-1, 3, *[-1] * (x.dim() - 1)) * m.gain.view(1, 3, *[1] * (x.dim() - 1))).sum(1)


def minibatch_std(m, x):
    """One number of the batch, as progressive growing has it."""
    deviation = torch.sqrt(x.var(0, unbiased=False) + 1e-8).mean()
    return x + m.gain * deviation.expand_as(x)


def reads_the_batch(m, x):
    return x - 0.3 * x.mean(0, keepdim=True)


def kernel():
    k = torch.tensor([1.0, 2.0, 1.0])
    return (k[:, None] * k)[None, None] / 16


def grid():
    theta = torch.tensor([[0.9, 0.2, 0.1], [-0.2, 0.8, -0.05]])
    return F.affine_grid(theta[None], (1, 1, SIDE, SIDE), align_corners=False)


def samples_a_grid(m, x):
    g = m.grid[:, : x.size(2), : x.size(3)].expand(x.size(0), -1, -1, -1)
    return F.grid_sample(x, g, align_corners=False) + 0.2 * x


def unfolds(m, x):
    b, c, h, w = x.shape
    return (F.unfold(x, 3, padding=1).view(b, c, 9, h, w) * m.taps.view(1, 1, 9, 1, 1)).sum(2)


def folds(m, x):
    return F.fold(F.unfold(x, 2, stride=2) * 1.2, x.shape[2:], 2, stride=2)


def blurs(m, x):
    return F.conv2d(x, m.kernel.expand(x.size(1), -1, -1, -1), padding=1, groups=x.shape[1])


def blurs_padded(m, x):
    weight = m.kernel.to(x.dtype).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(x, [1, 1, 1, 1], mode="replicate"), weight, groups=x.size(1))


def grouped_minibatch_std(m, x):
    """StyleGAN2's, as one more channel."""
    b, c, h, w = x.shape
    group = 2 if b % 2 == 0 else b
    y = x.reshape(group, -1, 1, c, h, w)
    y = (y.var(0, unbiased=False) + 1e-8).sqrt().mean([2, 3, 4], keepdim=True).squeeze(2)
    return m.layer(torch.cat([x, y.repeat(group, 1, h, w)], 1))


def attends(m, x):
    b, c, h, w = x.size()
    q, k, v = m.q(x).view(b, -1, h * w), m.k(x).view(b, -1, h * w), m.v(x).view(b, -1, h * w)
    seen = torch.softmax(torch.bmm(q.permute(0, 2, 1), k), dim=-1)
    return m.gamma * torch.bmm(v, seen.transpose(1, 2)).view(b, c, h, w) + x


def attends_pooled(m, x):
    """BigGAN's: keys and values at half the side."""
    _, c, h, w = x.shape
    q = m.q(x).view(-1, c // 2, h * w)
    k = F.max_pool2d(m.k(x), [2, 2]).view(-1, c // 2, h * w // 4)
    v = F.max_pool2d(m.v(x), [2, 2]).view(-1, c, h * w // 4)
    beta = F.softmax(torch.bmm(q.transpose(1, 2), k), -1)
    return m.gamma * torch.bmm(v, beta.transpose(1, 2)).view(-1, c, h, w) + x


def attends_scaled(m, x):
    b, c, h, w = x.shape
    q, k, v = m.qkv(x).flatten(2).transpose(1, 2).chunk(3, -1)
    q, k, v = (t.reshape(b, h * w, 2, c // 2).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v)
    return x + out.transpose(1, 2).reshape(b, h * w, c).transpose(1, 2).view(b, c, h, w)


def attends_by_module(m, x):
    tokens = x.flatten(2).transpose(1, 2)
    out, _ = m.attention(tokens, tokens, tokens, need_weights=m.attention.batch_first)
    return x + out.transpose(1, 2).reshape(x.shape)


def squeezes(m, x):
    gate = torch.sigmoid(m.b(F.relu(m.a(x.mean((2, 3))))))
    return x * gate[:, :, None, None]


def shuffles(m, x):
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


def convolution(c):
    return conv3(c, c)


ANY = {  # name: (body, what it holds, of a maker of layers); at any shape
    "chunk": (swaps_halves, {}),
    "split": (splits, {}),
    "unbind": (unbinds, {}),
    "len(x)": (flattens_by_len, {}),
    "x.shape": (named_sizes, {}),
    "flip": (lambda m, x: x.flip(1) + 0.3 * x, {}),
    "roll": (lambda m, x: torch.roll(x, 1, -1) - 0.4 * x, {}),
    "amax": (lambda m, x: x - 0.5 * x.amax(1, keepdim=True), {}),
    "max over dim": (lambda m, x: x + x.max(dim=1, keepdim=True)[0], {}),
    "max values": (lambda m, x: x * x.max(1).values.unsqueeze(1).tanh(), {}),
    "lerp": (lambda m, x: torch.lerp(x, x.tanh(), 0.3), {}),
    "addcmul": (lambda m, x: torch.addcmul(x, x.tanh(), x, value=0.5), {}),
    "logsumexp": (lambda m, x: x - torch.logsumexp(x, 1, keepdim=True), {}),
    "no_grad": (divides_by_a_constant, {}),
    "mask": (masks, {}),
    "detach": (stops, {}),
    "where": (wheres, {}),
    "new_zeros": (pads_with_zeros, {}),
    "mean of the batch": (reads_the_batch, {}),
    "index": (lambda m, x: x[:, [1, 0, 3, 2]].repeat(1, x.size(1) // 4, *[1] * (x.dim() - 2)), {}),
    "fills in": (fills_in, {}),
    "maximum": (lambda m, x: torch.maximum(x, x.flip(1)), {}),
    "cumsum": (lambda m, x: x.cumsum(1) * 0.5, {}),
    "exp": (lambda m, x: torch.exp(-x.pow(2)), {}),
    "masked_fill": (lambda m, x: x.masked_fill(x < 0, 0.0) + 0.1 * x, {}),
    "glu": (lambda m, x: F.glu(torch.cat([x, x.flip(1)], 1), 1), {}),
    "add, alpha": (lambda m, x: torch.add(x, x.sin(), alpha=0.3), {}),
    "div": (lambda m, x: x / (1 + x.abs()), {}),
    "einsum": (
        lambda m, x: torch.einsum("bc...,cd->bd...", x, m.w),
        lambda layer: {"w": weights(m_width(layer), m_width(layer))},
    ),
    ".item()": (lambda m, x: m.alpha.item() * m.layer(x), lambda layer: {"layer": layer, "alpha": torch.tensor(0.6)}),
    "float()": (lambda m, x: x * (1 + float(m.alpha)), lambda layer: {"alpha": torch.tensor(0.6)}),
    "alpha": (fades_in, lambda layer: {"layer": layer, "alpha": torch.tensor(0.6)}),
    "alpha of 1": (fades_in, lambda layer: {"layer": layer, "alpha": torch.tensor(1.0)}),
    "options": (by_options, lambda layer: {"layer": layer, "opt": types.SimpleNamespace(beta=0.8, twice=True)}),
    "h += x": (adds_to_itself, lambda layer: {"layer": layer}),
    "relu over the shortcut": (relu_over_the_shortcut, lambda layer: {"layer": layer, "act": nn.ReLU(inplace=True)}),
    "relu_ over the shortcut": (relu__over_the_shortcut, lambda layer: {"layer": layer}),
    "mul_ of a view": (scales_a_view, lambda layer: {"layer": layer}),
    "mul_ of a part": (scales_a_part, lambda layer: {"layer": layer}),
    "written part": (writes_a_part, lambda layer: {"layer": layer}),
    "autocast": (without_autocast, lambda layer: {"layer": layer, "dtype_of": torch.zeros(1)}),
    "questions": (asks_everything, lambda layer: {"layer": layer}),
    "getattr": (by_getattr, lambda layer: {"layer0": layer, "layer1": nn.Tanh(), "layer2": layer, "count": 3}),
    "counts and keeps": (counts_and_keeps, lambda layer: {"layer": layer, "calls": torch.zeros((), dtype=torch.long)}),
    "counts in Python": (counts_in_python, lambda layer: {"layer": layer}),
    "conversions": (converts, lambda layer: {"layer": layer}),
    "ones": (shortens_by_pads, lambda layer: {"layer": layer}),
    "expand": (expands, lambda layer: {"gain": weights(3)}),
    "minibatch stddev": (minibatch_std, lambda layer: {"gain": number(0.5)}),
    "shared": (lambda m, x: m.layer(m.layer(x).tanh()), lambda layer: {"layer": layer}),
    "lerp by a parameter": (
        lambda m, x: torch.lerp(x, m.layer(x), m.share),
        lambda layer: {"layer": layer, "share": number(0.4)},
    ),
    "addcmul by a parameter": (lambda m, x: x.addcmul(x, m.share), lambda layer: {"share": number(0.4)}),
    "add_": (lambda m, x: m.layer(x).add_(x).mul_(0.8), lambda layer: {"layer": layer}),
    "gain": (lambda m, x: x * m.gain.exp() + m.shift, lambda layer: {"gain": number(0.1), "shift": number(0.2)}),
}

IMAGE = {  # name: (body, what it holds, of width and side)
    "flip of rows": (lambda m, x: torch.flip(x, dims=[2, 3]) * 0.5 + x, {}),
    "roll of rows": (lambda m, x: x.roll(shifts=(1, -1), dims=(2, 3)), {}),
    "amax of pixels": (lambda m, x: x - x.amax((2, 3), keepdim=True), {}),
    "unfold": (unfolds, lambda c, s: {"taps": weights(9)}),
    "fold": (folds, {}),
    "grid_sample": (samples_a_grid, lambda c, s: {"grid": grid()}),
    "blur": (blurs, lambda c, s: {"kernel": kernel()}),
    "padded blur": (blurs_padded, lambda c, s: {"kernel": kernel()}),
    "F.adaptive_max_pool2d": (lambda m, x: x * F.adaptive_max_pool2d(x, 1).sigmoid(), {}),
    "AdaptiveMaxPool2d": (
        lambda m, x: x + F.interpolate(m.pool(x), x.shape[2:]),
        lambda c, s: {"pool": nn.AdaptiveMaxPool2d(2)},
    ),
    "stddev of groups": (grouped_minibatch_std, lambda c, s: {"layer": conv3(c + 1, c)}),
    "attention": (
        attends,
        lambda c, s: {
            "q": nn.Conv2d(c, c // 2, 1),
            "k": nn.Conv2d(c, c // 2, 1),
            "v": nn.Conv2d(c, c, 1),
            "gamma": nn.Parameter(torch.ones(1)),
        },
    ),
    "pooled attention": (
        attends_pooled,
        lambda c, s: {
            "q": nn.Conv2d(c, c // 2, 1, bias=False),
            "k": nn.Conv2d(c, c // 2, 1),
            "v": parametrizations.spectral_norm(nn.Conv2d(c, c, 1)),
            "gamma": number(0.7),
        },
    ),
    "scaled_dot_product_attention": (attends_scaled, lambda c, s: {"qkv": nn.Conv2d(c, 3 * c, 1)}),
    "MultiheadAttention": (
        attends_by_module,
        lambda c, s: {"attention": nn.MultiheadAttention(c, 2, batch_first=True)},
    ),
    "squeeze and excite": (squeezes, lambda c, s: {"a": nn.Linear(c, 4), "b": nn.Linear(4, c)}),
    "shuffle": (shuffles, {}),
    "movedim": (lambda m, x: m.layer(x.movedim(1, -1)).movedim(-1, 1), lambda c, s: {"layer": nn.Linear(c, c)}),
    "gram": (
        lambda m, x: (
            torch.matmul(x.flatten(2), x.flatten(2).transpose(1, 2)).unsqueeze(-1).mean(2, keepdim=True)
            / x[0, 0].numel()
            + x
        ),
        {},
    ),
    "pixel shuffle": (
        lambda m, x: F.pixel_unshuffle(F.pixel_shuffle(torch.cat([x, x.tanh(), x, -x], 1), 2), 2)[:, : x.size(1)] + x,
        {},
    ),
    "upsample": (
        lambda m, x: F.avg_pool2d(m.layer(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)), 2),
        lambda c, s: {"layer": conv3(c, c)},
    ),
    "coordinates": (
        lambda m, x: m.layer(
            torch.cat([x, torch.linspace(-1, 1, x.size(3), dtype=x.dtype).expand(x.size(0), 1, x.size(2), -1)], 1)
        ),
        lambda c, s: {"layer": conv3(c + 1, c)},
    ),
    "dense": (
        lambda m, x: m.b(torch.cat([x, F.relu(m.a(x))], 1)),
        lambda c, s: {"a": conv3(c, c), "b": conv3(2 * c, c)},
    ),
}

HALVES = {  # the side, at the same width
    "AvgPool2d": lambda c: nn.AvgPool2d(2),
    "F.avg_pool2d": lambda c: Do(lambda m, x: F.avg_pool2d(x, 2)),
    "MaxPool2d": lambda c: nn.MaxPool2d(2),
    "F.max_pool2d": lambda c: Do(lambda m, x: F.max_pool2d(x, 2)),
    "stride": lambda c: nn.Conv2d(c, c, 4, 2, 1),
    "odd stride": lambda c: nn.Conv2d(c, c, 3, stride=2, padding=1, bias=False),
    "AdaptiveAvgPool2d": lambda c: Do(lambda m, x: F.adaptive_avg_pool2d(x, (x.size(2) // 2, x.shape[3] // 2))),
    "interpolate": lambda c: Do(lambda m, x: F.interpolate(x, scale_factor=0.5, mode="nearest")),
    "AdaptiveMaxPool2d": lambda c: Do(lambda m, x: F.adaptive_max_pool2d(x, x.size(2) // 2)),
    "unshuffle": lambda c: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * c, c, 1)),
    "four slices": lambda c: Do(
        lambda m, x: (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
    ),
    "blur": lambda c: Do(
        lambda m, x: F.conv2d(
            F.pad(x, (1, 1, 1, 1), mode="reflect"), m.kernel.expand(x.size(1), -1, -1, -1), stride=2, groups=x.size(1)
        ),
        kernel=kernel(),
    ),
    "space to depth": lambda c: Do(
        lambda m, x: m.layer(
            x.view(x.size(0), x.size(1), x.size(2) // 2, 2, -1, 2)
            .permute(0, 1, 3, 5, 2, 4)
            .reshape(x.size(0), -1, x.size(2) // 2, x.size(3) // 2)
        ),
        layer=nn.Conv2d(4 * c, c, 1),
    ),
}


def m_width(layer):
    """The width of a convolution or a linear layer."""
    return layer.weight.shape[0]


# --- blocks, heads and whole critics ----------------------------------------------------------------------------------


class Residual(nn.Module):
    """Before or after its activations; an activation in place changes what the shortcut reads, as in torch."""

    def __init__(self, convs, norms, acts, shortcut, scale, style):
        super().__init__()
        self.c1, self.c2 = convs
        self.n1, self.n2 = norms
        self.a1, self.a2 = acts
        self.shortcut, self.scale, self.style = shortcut, scale, style

    def residual(self, x):
        if self.style == "before":
            return self.c2(self.a2(self.n2(self.c1(self.a1(self.n1(x))))))
        return self.n2(self.c2(self.a1(self.n1(self.c1(x)))))

    def forward(self, x):
        if self.style == "before":
            return (self.residual(x) + self.shortcut(x)) * self.scale
        h = self.residual(x)
        h += self.shortcut(x)
        return self.a2(h)


class Stack(nn.Module):
    """Blocks in a list, by a loop or by names that getattr reads."""

    def __init__(self, blocks, named):
        super().__init__()
        self.named = len(blocks) if named else 0
        if named:
            for i, block in enumerate(blocks):
                setattr(self, f"block_{i}", block)
        else:
            self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in [getattr(self, f"block_{i}") for i in range(self.named)] if self.named else self.blocks:
            x = block(x)
        return x


class Critic(nn.Module):
    def __init__(self, stem, trunk, head):
        super().__init__()
        self.stem, self.trunk, self.head = stem, trunk, head

    def forward(self, x):
        return self.head(self.trunk(self.stem(x)))


class Labelled(Critic):
    def forward(self, x, y):
        return self.head(self.trunk(self.stem(x)), y)


class Sums(nn.Module):
    """Global sum pooling before a linear layer."""

    def __init__(self, c, act, old_norm):
        super().__init__()
        self.act, self.linear = act, nn.utils.spectral_norm(nn.Linear(c, 1)) if old_norm else nn.Linear(c, 1)

    def forward(self, h):
        return self.linear(torch.sum(self.act(h), dim=(2, 3)) if h.dim() == 4 else self.act(h)).squeeze(1)


class Projection(nn.Module):
    """l(h) + ⟨e(y), h⟩, with labels as people convert them."""

    def __init__(self, c, how):
        super().__init__()
        self.linear, self.how = nn.Linear(c, 1), how
        self.embed = nn.Linear(4, c, bias=False) if how == "one-hot" else nn.Embedding(4, c)

    def forward(self, h, y):
        h = h.sum((2, 3)) if h.dim() == 4 else h
        if self.how == "one-hot":
            e = self.embed(F.one_hot(y.view(-1), 4).type_as(h))
        elif self.how == "LongTensor":
            e = self.embed(y.type(torch.LongTensor).to(h.device))
        else:
            e = self.embed(y.long())
        return self.linear(h) + torch.sum(e * h, dim=1, keepdim=True)


class Beside(nn.Module):
    """Embedded labels, concatenated."""

    def __init__(self, c):
        super().__init__()
        self.embed, self.linear = nn.Embedding(4, 3), nn.Linear(c + 3, 1)

    def forward(self, h, y):
        h = h.mean((2, 3)) if h.dim() == 4 else h
        return self.linear(torch.cat((h, self.embed(y)), -1))


class Outputs(nn.Module):
    """The scores first, then what others read."""

    def __init__(self, c, kind):
        super().__init__()
        self.score, self.other, self.kind = nn.Linear(c, 1), nn.Linear(c, 3), kind

    def forward(self, h):
        h = h.mean((2, 3)) if h.dim() == 4 else h
        return self.kind((self.score(h), self.other(h), h))


IMAGE_HEADS = {
    "flatten": lambda r, c, s: nn.Sequential(nn.Flatten(), nn.Linear(c * s * s, 1)),
    "view": lambda r, c, s: Do(lambda m, h: m.linear(h.view(h.size(0), -1)), linear=nn.Linear(c * s * s, 1)),
    "view of -1": lambda r, c, s: Do(
        lambda m, h: m.linear(h.reshape(-1, m.linear.in_features)).view(-1), linear=nn.Linear(c * s * s, 1)
    ),
    "patches": lambda r, c, s: nn.Conv2d(c, 1, 3, padding=1),
    "patches in a column": lambda r, c, s: Do(lambda m, h: m.conv(h).view(-1, 1), conv=nn.Conv2d(c, 1, 1)),
    "patches in a row": lambda r, c, s: Do(
        lambda m, h: m.conv(h).permute(0, 2, 3, 1).reshape(-1), conv=nn.Conv2d(c, 1, 2)
    ),
    "whole": lambda r, c, s: Do(lambda m, h: m.conv(h).squeeze(), conv=nn.Conv2d(c, 1, s)),
    "mean": lambda r, c, s: Do(lambda m, h: m.conv(h).mean([1, 2, 3]), conv=nn.Conv2d(c, 2, 1)),
    "sum pooling": lambda r, c, s: Sums(c, activation(r), r.random() < 0.5),
    "projection": lambda r, c, s: Projection(c, r.choice(["one-hot", "LongTensor", "long"])),
    "labels beside": lambda r, c, s: Beside(c),
    "several outputs": lambda r, c, s: Outputs(c, r.choice([tuple, list])),
    "max pooling": lambda r, c, s: Do(lambda m, h: m.linear(h.flatten(2).max(dim=2)[0]), linear=nn.Linear(c, 1)),
}

FLAT_HEADS = {
    "linear": lambda r, c: nn.Linear(c, 1),
    "several scores": lambda r, c: nn.Linear(c, 3),
    "squeezed": lambda r, c: Do(lambda m, h: m.linear(h).squeeze(), linear=nn.Linear(c, 1)),
    "distance": lambda r, c: Do(lambda m, h: (h - m.centre).norm(dim=1), centre=weights(c)),
    "projection": lambda r, c: Projection(c, r.choice(["one-hot", "LongTensor", "long"])),
    "labels beside": lambda r, c: Beside(c),
    "several outputs": lambda r, c: Outputs(c, r.choice([tuple, list])),
    "sum pooling": lambda r, c: Sums(c, activation(r), r.random() < 0.5),
    "cosine": lambda r, c: Do(lambda m, h: F.cosine_similarity(h, m.centre.expand_as(h)), centre=weights(c)),
}
LABELLED = "projection", "labels beside"


class Log(random.Random):
    """Draws, and remembers the names drawn."""

    def __init__(self, seed):
        super().__init__(seed)
        self.names = []

    def of(self, table, *args):
        name = self.choice(list(table))
        self.names.append(name)
        return table[name](*args)

    def note(self, name):
        self.names.append(name)


SIMPLE = "ReLU", "ReLU in place", "LeakyReLU", "LeakyReLU in place", "F.relu", "F.leaky_relu"


def activation(r):
    if r.random() < 0.35:
        return r.of({name: ACTIVATIONS[name] for name in SIMPLE})
    return r.of(ACTIVATIONS)


def construct(r, c, s, name=None):
    name = name or r.choice(list(IMAGE) if s and r.random() < 0.4 else list(ANY))
    r.note(name)
    if name in IMAGE:
        body, held = IMAGE[name]
        return Do(body, **(held(c, s) if held else {}))
    body, held = ANY[name]
    return Do(body, **(held(conv3(c, c) if s else nn.Linear(c, c)) if held else {}))


def layer_and_norm(r, c, s):
    layer = r.of(CONVOLUTIONS, c) if s else r.of(LINEARS, c)
    return layer, r.of(NORMS, c, s) if s else r.of(FLAT_NORMS, c)


def block(r, c, s, name=None):
    kind = "construct" if name else r.choice(["plain", "before", "after", "construct", "construct"])
    r.note(f"[{kind}:")
    if kind == "construct":
        layer, norm = layer_and_norm(r, c, s)
        parts = [layer, norm, activation(r), construct(r, c, s, name)]
        if r.random() < 0.5:
            parts = parts[:2] + parts[:1:-1]
        made = nn.Sequential(*parts)
    elif kind == "plain":
        made = nn.Sequential(*layer_and_norm(r, c, s), activation(r))
    else:
        (c1, n1), (c2, n2) = layer_and_norm(r, c, s), layer_and_norm(r, c, s)
        shortcut = construct(r, c, s) if r.random() < 0.3 else nn.Identity()
        scale = 0.5**0.5 if r.random() < 0.3 else 1
        made = Residual((c1, c2), (n1, n2), (activation(r), activation(r)), shortcut, scale, kind)
    r.note("]")
    return made


def build(seed, attempt=0):
    """(critic in fp64, shape of a sample, whether it reads labels, description): the same for the same numbers."""
    r = Log(1000 * seed + attempt)
    torch.manual_seed(1000 * seed + attempt)
    constructs = [*ANY, *IMAGE]
    name = constructs[(seed - seed // 3 - 1) % len(constructs)] if seed % 3 else None  # each of them in 116 seeds
    c, side = r.choice([4, 8]), SIDE if name in IMAGE else r.choice([0, SIDE, SIDE])
    blocks, s = [], side
    for i in range(r.choice([1, 2, 2, 3])):
        blocks.append(block(r, c, s, None if i else name))
        if s > 4 and r.random() < 0.6:
            blocks.append(r.of(HALVES, c))
            s //= 2
    if side:
        shape, stem = (3, side, side), nn.Conv2d(3, c, 3, padding=1)
        head = r.of(IMAGE_HEADS, r, c, s)
    else:
        shape, stem = (6,), nn.Linear(6, c)
        head = r.of(FLAT_HEADS, r, c)
    labelled = isinstance(head, (Projection, Beside))
    trunk = nn.Sequential(*blocks) if r.random() < 0.6 else Stack(blocks, r.random() < 0.5)
    if labelled:
        critic = Labelled(stem, trunk, head)
    else:
        critic = Critic(stem, trunk, head) if r.random() < 0.5 else nn.Sequential(stem, *trunk.children(), head)
    for parameter in critic.parameters():
        if r.random() < 0.05:
            parameter.requires_grad_(False)
    if r.random() < 0.1:
        r.note("evaluation")
        critic.eval()
    critic = settle(critic.double())
    if r.random() < 0.1:
        r.note("DataParallel")
        critic = nn.DataParallel(critic)
    return critic, shape, labelled, f"{c} wide, {shape}: {' '.join(r.names)}"


def settle(critic):
    """Larger weights, running statistics like data's, and spectral norms that another iteration leaves as they are."""
    with torch.no_grad():
        for p in critic.parameters():
            if p.dim() > 1:
                p.mul_(1.5)
            elif p.dim() == 1:
                p.add_(0.2 * torch.randn_like(p))
        for module in critic.modules():
            if getattr(module, "running_var", None) is not None:
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
            if hasattr(module, "own_u"):
                module.own_u.copy_(singular(module.layer.weight)[0])
            if hasattr(module, "weight_u"):
                for vector, found in zip((module.weight_u, module.weight_v), singular(module.weight_orig)):
                    vector.copy_(found)
            made = module.parametrizations.weight if nn.utils.parametrize.is_parametrized(module) else None
            if made and hasattr(made[0], "_u"):
                for vector, found in zip((made[0]._u, made[0]._v), singular(made.original)):
                    vector.copy_(found)
    return critic


def singular(weight):
    u, _, v = torch.linalg.svd(weight.detach().flatten(1))
    return u[:, 0], v[0]


# --- truth ------------------------------------------------------------------------------------------------------------


def first(scores):
    return scores[0] if isinstance(scores, (tuple, list)) else scores


def norms_of(critic, x, inputs):
    (g,) = torch.autograd.grad(first(critic(x, *inputs)).sum(), x, create_graph=True)
    squares = g.flatten(1).square().sum(1)
    return torch.where(squares == 0, 0.0, torch.where(squares == 0, 1.0, squares).sqrt())


def interpolated(real, fake, eps):
    eps = eps.view(-1, *[1] * (real.dim() - 1))
    return eps * real + (1 - eps) * fake


def plain_penalty(critic, real, fake, eps, inputs):
    x = interpolated(real, fake, eps)
    return 10 * (norms_of(critic, x if x.requires_grad else x.requires_grad_(), inputs) - 1).square().mean()


def plain_r1(critic, real, fake, eps, inputs):
    real = real if real.requires_grad else real.clone().requires_grad_()
    return 5 * norms_of(critic, real, inputs).square().mean()


def plain_step(critic, real, fake, eps, inputs):
    wasserstein = first(critic(real, *inputs)).mean() - first(critic(fake, *inputs)).mean()
    return plain_penalty(critic, real, fake, eps, inputs) - wasserstein


def our_penalty(critic, real, fake, eps, inputs):
    return penalty.gradient_penalty(critic, real, fake, eps=eps, inputs=inputs)


def our_r1(critic, real, fake, eps, inputs):
    return penalty.r1(critic, real, inputs=inputs)


def our_step(critic, real, fake, eps, inputs):
    return penalty.wgan_gp_step(critic, real, fake, eps=eps, inputs=inputs).loss


WAYS = {
    "gradient_penalty": (plain_penalty, our_penalty),
    "r1": (plain_r1, our_r1),
    "wgan_gp_step": (plain_step, our_step),
}


def batch(seed, shape, labelled, size, dtype=torch.float64):
    """real, fake, ε and further arguments; numbers that fp32 has exactly."""
    generator = torch.Generator().manual_seed(seed)
    real, fake = (torch.randn(size, *shape, generator=generator).to(dtype) for _ in range(2))
    eps = torch.rand(size, generator=generator).to(dtype)
    return real, fake, eps, (torch.randint(4, (size,), generator=generator),) if labelled else ()


def found(way, critic, data, of_samples=False):
    """(value, gradients of the parameters that are trained, and of the samples if asked for, buffers afterwards)."""
    real, fake, eps, inputs = data
    if of_samples:
        real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
    critic.zero_grad()
    value = way(critic, real, fake, eps, inputs)
    if value.requires_grad:
        value.backward()
    trained = [p for p in critic.parameters() if p.requires_grad] + ([real, fake] if of_samples else [])
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained]
    return value.detach().double(), gradients, [b.clone() for b in critic.buffers()]


def plain(way, critic, data, of_samples=False):
    """By torch alone; its fused attention has no second derivative, its written one has."""
    with sdpa_kernel(SDPBackend.MATH):
        return found(WAYS[way][0], critic, data, of_samples)


def length(tensors):
    return float(torch.cat([t.double().flatten() for t in tensors]).norm())


def distance(a, b):
    return length([s.double() - t.double() for s, t in zip(a, b)]) / length(b)


def moved(critic, size):
    """Its weights moved by noise, a little more than what fp32 rounds."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(1 + size * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return critic


def usable(seed, attempt):
    """Whether plain torch derives it twice, to gradients of sensible length that noise of fp32's size moves little."""
    try:
        with quiet():
            _, shape, labelled, _ = build(seed, attempt)
            data = batch(seed, shape, labelled, 5)
            for way in WAYS:
                _, wanted, _ = plain(way, build(seed, attempt)[0], data)
                if not 1e-3 < length(wanted) < 1e5:
                    return False
                for size in (3e-6, -3e-6):
                    _, beside, _ = plain(way, moved(build(seed, attempt)[0], size), data)
                    if not distance(beside, wanted) < 5e-5:
                        return False
            again = batch(seed + 1, shape, labelled, 6 if seed % 4 == 0 else 5)
            if not length(plain("r1", changed(build(seed, attempt)[0], seed), again)[1]) > 1e-3:
                return False
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False
    return True


def find(seed):
    """The first attempt that is usable."""
    return next(attempt for attempt in range(1000) if usable(seed, attempt))


def changed(critic, seed):
    """What users change between steps: weights, numbers in buffers and options; of some critics the mode."""
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(1.03)
    for module in critic.modules():
        if hasattr(module, "alpha"):
            module.alpha.mul_(0.6)
        if hasattr(module, "opt"):
            module.opt.beta, module.opt.twice = 1.1, False
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.3
    if seed % 5 == 0:
        critic.train(not critic.training)
    for module in critic.modules():
        if isinstance(module, (nn.Dropout, nn.RReLU)):  # they draw in training
            module.eval()
    return critic


# --- the judge --------------------------------------------------------------------------------------------------------


def judge(seed, attempt):
    """What is wrong with our penalties of this critic: a list of sentences."""
    wrong, alive = [], []
    held = {id(t) for t in tensors()}
    with quiet():
        for name in WAYS:
            for kind in ("float64", "float32", "changed"):
                try:
                    wrong += [f"{name}, {kind}: {what}" for what in faults(seed, attempt, name, kind, alive)]
                except Exception as error:  # ours, whatever it is
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    place = f"{where.filename.split('/')[-1]}:{where.lineno}"
                    wrong.append(f"{name}, {kind}: {type(error).__name__} at {place}: {str(error)[:200]}")
                    del error
    for _ in range(2):  # tensors that a graph holds outlive the first
        gc.collect()
    if any(reference() is not None for reference in alive):
        wrong.append("a critic or a batch is alive afterwards")
    elif left := [tuple(t.shape) for t in tensors() if id(t) not in held and t.dim() > 1 and t.is_floating_point()]:
        wrong.append(f"tensors are alive afterwards: {left[:3]}")
    return wrong


def tensors():
    return [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]


def faults(seed, attempt, name, kind, alive):
    """Of one function in one dtype, or called again when the critic has changed."""
    ours = WAYS[name][1]
    critic, shape, labelled, _ = build(seed, attempt)
    data = batch(seed, shape, labelled, 5)
    of_samples = name != "wgan_gp_step" and seed % 2 == 0
    if kind == "changed":
        if name == "gradient_penalty":
            return
        truth = build(seed, attempt)[0]
        found(ours, critic, data)
        plain(name, truth, data)
        data = batch(seed + 1, shape, labelled, 6 if seed % 4 == 0 else 5)
        state = {k: v.clone() for k, v in truth.state_dict().items()}
        critic.load_state_dict(state)  # a merged step may have made other running statistics
        wanted = plain(name, changed(truth, seed), data, of_samples)
        critic = changed(critic, seed)
    else:
        wanted = plain(name, build(seed, attempt)[0], data, of_samples)
    limit = 1e-9
    if kind == "float32":
        narrow = batch(seed, shape, labelled, 5, torch.float32)
        limit = max(2e-4, distance(plain(name, build(seed, attempt)[0].float(), narrow, of_samples)[1], wanted[1]))
        critic, data = critic.float(), narrow
    alive += [weakref.ref(t) for t in (critic, *data[:3])]
    value, gradients, buffers = found(ours, critic, data, of_samples)
    if not distance(gradients, wanted[1]) <= limit:
        yield f"gradients are {distance(gradients, wanted[1]):.1e} off"
    if not abs(value - wanted[0]) <= limit * max(1, abs(wanted[0])):
        yield f"the value is {value:.6g}, not {wanted[0]:.6g}"
    if kind == "float64" and name != "wgan_gp_step":  # which may take real, fake and x̂ at once
        pairs = [(a.double(), b.double()) for a, b in zip(buffers, wanted[2])]
        if not all(torch.allclose(a, b, rtol=1e-8, atol=1e-9) for a, b in pairs):
            yield "its buffers are other than plain torch leaves them"


def warm_up():
    """What the first critics import and leave is not looked through after each of the others."""
    for seed in range(3):
        judge(seed, find(seed))
    gc.collect()
    gc.freeze()


def path(seed, attempt):
    """How r1 goes: by rules, or why not."""
    critic, shape, labelled, _ = build(seed, attempt)
    real, _, _, inputs = batch(seed, shape, labelled, 5)
    try:
        with quiet():
            penalty.r1(critic, real, inputs=inputs, strict=True)
    except penalty.NoRuleError as error:
        return str(error).split(" has no rule")[0][:90]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:90]
    return "by rules"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="seed")
    args = parser.parse_args()
    warm_up()
    start, failed, paths = time.perf_counter(), 0, collections.Counter()
    for seed in range(args.first, args.first + args.count):
        attempt = find(seed)
        wrong = judge(seed, attempt)
        paths[path(seed, attempt)] += 1
        failed += bool(wrong)
        if wrong or args.count == 1:
            print(f"build({seed}, {attempt}): {build(seed, attempt)[3]}", *wrong, sep="\n    ", flush=True)
    print(f"{failed} of {args.count} critics failed, in {time.perf_counter() - start:.0f} s", "r1 goes", sep="\n")
    for name, count in paths.most_common():
        print(f"{count:6d}  {name}")


if __name__ == "__main__":
    main()
