"""batch_norm_act's Triton kernels against the reference in fp64."""

import itertools

import torch
from ganfast.kernels import _statistics
from ganfast.kernels import batch_norm_act as kernels

from ganfast import activations
from ganfast.ops import batch_norm_act as op
from ganfast.ops._channels import lies
from ganfast.reference import batch_norm_act as plain
from ganfast.reference.batch_norm_act import batch_norm_act_backward as plain_backward
from ganfast.reference.batch_norm_act import normalise_act as plain_normalise

forward, normalise, backward = (
    each.backends[0].run for each in (op.batch_norm_act, op.normalise_act, op.batch_norm_act_backward)
)


def prepare(small):
    """Several chunks and steps even of few numbers; small: one program for each few channels."""
    torch.manual_seed(0)
    kernels.TILE, kernels.PROGRAMS, _statistics.TILES = 64, 6, 2
    kernels.SMALL = 4 << 20 if small else 0


def close(got, wanted, bound, where, scale=None):
    """The error is relative to `scale`, the size of what is added up, where that is more than the result."""
    scale = wanted.double().norm() if scale is None else scale
    assert float((got.double() - wanted).norm()) <= bound * float(scale), (where, got, wanted)


def laid(x, last):
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x


def all_kernels(last, small) -> None:
    """Forward and backward. Errors of sums are relative to Σ|dz| or Σ|dz·x̂|; half types round the tensors."""
    prepare(small)
    done = 0
    shapes = ((5, 3, 5, 7), (20, 1, 2, 4), (2, 70, 2, 2), (1, 2, 13, 11), (33, 17), (2, 2, 2, 3, 5))
    for count, shape in enumerate(shapes):
        channels = shape[1]
        every = ("relu", "gelu") if small else activations.ROWS
        for act in every if count == 0 else ("relu",):
            for use_batch in (True, False) if count == 0 else (True,):
                dtype = (torch.float32, torch.float16)[(done + done // 2 + last) % 2]  # each in one of the layouts
                bound = 2e-6 if dtype == torch.float32 else 2**-11 + 2e-6
                done += 1
                where = dtype, shape, act, use_batch
                y, g = (laid(torch.randn(shape), last) for _ in range(2))
                y, g = (2 * y + 3).to(dtype), g.to(dtype)
                weight, bias = torch.rand(channels) + 0.5, torch.randn(channels)
                if count % 3 == 1:
                    weight, bias = None, bias.to(dtype)
                moments, options = torch.stack((3 + torch.randn(channels), torch.rand(channels) + 1)), (1e-5, act, 0.2)
                w64 = [None if t is None else t.double() for t in (weight, bias)]
                m64 = moments.double()
                if use_batch:
                    a, moments = forward(y, weight, bias, None, None, None, 0.1, *options)
                    a64, m64 = plain(y.double(), *w64, None, None, None, 0.1, *options)
                    close(moments[0], m64[0], 3e-7, where)
                    close(moments[1], m64[1], 1e-6, where)
                else:
                    a = normalise(y, weight, bias, moments, *options)
                    a64 = plain_normalise(y.double(), *w64, m64, *options)
                dy, sums = backward(g, y, weight, bias, moments, use_batch, *options)
                assert a.stride() == dy.stride() == y.stride()
                close(a, a64, bound, where, a64.norm() + 1)
                dy64, sums64 = plain_backward(g.double(), y.double(), *w64, m64, use_batch, *options)
                terms = g.double().abs().sum() / channels
                close(dy, dy64, bound, where, dy64.norm() + g.double().norm())
                close(sums[1], sums64[1], 2e-6, where, 3 * terms)
                close(sums[0], sums64[0], 2e-6, where, terms)
                alone = torch.full_like(sums, float("nan"))
                kernels.sums(g, *lies(y), weight, bias, moments, *options, alone)
                close(alone, sums64, 2e-6, where, 3 * terms)


def variance_and_non_finite(small) -> None:
    """Mean 1e4, deviation 1: mean and output are within fp32's rounding of 1e4, 5e-4; the variance is right."""
    prepare(small)
    nothing = None, None, None, None, None, 0.1  # weight, bias and running statistics
    for last in (False, True):
        y = laid(1e4 + torch.randn(8, 3, 8, 8), last)
        a, (mean, var) = forward(y, *nothing, 0.0, None, 0.0)
        v64, m64 = torch.var_mean(y.double(), (0, 2, 3), correction=0)
        close(var, v64, 1e-6, last)
        assert float((mean - m64).abs().max()) <= 5e-4
        x = (y.double() - m64[:, None, None]) / v64.sqrt()[:, None, None]
        assert float((a - x).abs().max()) <= 1e-3
        for size in (1e19, 1e25, 1e30):  # squares overflow: the variance is infinite, the mean and the output are not
            y = laid(size * torch.randn(8, 3, 8, 8), last)
            a, (mean, var) = forward(y, *nothing, 1e-5, None, 0.0)
            assert bool(mean.isfinite().all() and a.isfinite().all()) and not var.isnan().any(), (size, last)
        y = laid(torch.randn(3, 3, 3, 3), last)
        y[1, 1, 2, 2] = float("nan")
        for act in activations.ROWS:
            a, moments = forward(y, *nothing, 1e-5, act, 0.2)
            dy, sums = backward(y, y, None, None, moments, True, 1e-5, act, 0.2)
            for t in (a, dy):
                assert t[:, 1].isnan().all() and not t[:, ::2].isnan().any(), act
            assert sums[1].isnan().tolist() == moments[0].isnan().tolist() == [False, True, False]
        # given statistics: a nan and an infinity stay where they are
        y[2, 2, 0, 0] = float("inf")
        a = normalise(y, None, None, torch.tensor([[0.0] * 3, [1.0] * 3]), 1e-5, "relu", 0.2)
        assert a.isnan().sum() == 1 and a.isinf().sum() == 1


def running_statistics(small) -> None:
    prepare(small)
    for channels, momentum, dtype in itertools.product((1, 3, 40), (0.3, None), (torch.float32, torch.bfloat16)):
        for last in (False, True):
            y = laid(torch.randn(3, channels, 2, 2) * 2 + 1, last)
            start = torch.randn(channels).to(dtype), torch.rand(channels).to(dtype), torch.tensor(4)
            ours, theirs = ([t.clone() for t in start] for _ in range(2))
            forward(y, None, None, *ours, momentum, 1e-5, None, 0.0)
            plain(y, None, None, *theirs, momentum, 1e-5, None, 0.0)
            assert ours[2] == theirs[2] == 5
            for a, b in zip(ours[:2], theirs):
                assert torch.allclose(a, b, rtol=1e-6 if dtype == torch.float32 else 2**-7, atol=1e-6)
