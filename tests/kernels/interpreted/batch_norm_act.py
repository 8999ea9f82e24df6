"""batch_norm_act's Triton kernels against the reference in fp64."""

import torch
from ganfast.kernels import batch_norm_act as kernels

from ganfast import activations, reference
from ganfast.ops import batch_norm_act as op


def prepare():
    """Several chunks and steps even of small tensors."""
    torch.manual_seed(0)
    kernels.TILE, kernels.PROGRAMS, kernels.FINISH_CHUNKS = 64, 6, 2


def close(got, wanted, bound, where, scale=None):
    """The error is relative to `scale`, the size of what is added up, where that is more than the result."""
    scale = wanted.double().norm() if scale is None else scale
    assert float((got.double() - wanted).norm()) <= bound * float(scale), (where, got, wanted)


def laid(x, last):
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x


def all_kernels(last) -> None:
    """Forward and backward. Errors of sums are relative to Σ|dz| or Σ|dz·x̂|; half types round the tensors."""
    prepare()
    done = 0
    shapes = ((5, 3, 5, 7), (20, 1, 2, 4), (2, 70, 2, 2), (1, 2, 13, 11), (33, 17), (2, 2, 2, 3, 5))
    for count, shape in enumerate(shapes):
        channels = shape[1]
        for act in activations.ROWS if count == 0 else ("relu",):
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
                mean, var = 3 + torch.randn(channels), torch.rand(channels) + 1
                options = use_batch, 1e-5, act, 0.2
                a, m, v = op._triton_forward(y, weight, bias, mean, var, *options)
                first = op._triton_backward(g, y, weight, bias, m, v, *options)
                assert a.stride() == first[0].stride() == y.stride()
                w64 = [None if t is None else t.double() for t in (weight, bias)]
                a64, m64, v64 = reference.batch_norm_act(y.double(), *w64, mean.double(), var.double(), *options)
                close(m, m64, 3e-7, where)
                close(v, v64, 1e-6, where)
                close(a, a64, bound, where, a64.norm() + 1)
                dy, dweight, dbias = op._reference_backward(g.double(), y.double(), *w64, m64, v64, *options)
                terms = g.double().abs().sum() / channels
                close(first[0], dy, bound, where, dy.norm() + g.double().norm())
                loose = bound if bias is not None and bias.dtype == dtype else 2e-6
                close(first[1], dweight, 2e-6, where, 3 * terms)
                close(first[2], dbias, loose, where, terms)


def variance_and_non_finite() -> None:
    """Mean 1e4, deviation 1: mean and output are within fp32's rounding of 1e4, 5e-4; the variance is right."""
    prepare()
    for last in (False, True):
        y = laid(1e4 + torch.randn(8, 3, 8, 8), last)
        a, mean, var = op._triton_forward(y, None, None, None, None, True, 0.0, None, 0.0)
        v64, m64 = torch.var_mean(y.double(), (0, 2, 3), correction=0)
        close(var, v64, 1e-6, last)
        assert float((mean - m64).abs().max()) <= 5e-4
        x = (y.double() - m64[:, None, None]) / v64.sqrt()[:, None, None]
        assert float((a - x).abs().max()) <= 1e-3
        y = laid(torch.randn(3, 3, 3, 3), last)
        y[1, 1, 2, 2] = float("nan")
        for act in activations.ROWS:
            a, mean, var = op._triton_forward(y, None, None, None, None, True, 1e-5, act, 0.2)
            dy, dweight, _ = op._triton_backward(y, y, None, None, mean, var, True, 1e-5, act, 0.2)
            for t in (a, dy):
                assert t[:, 1].isnan().all() and not t[:, ::2].isnan().any(), act
            assert dweight.isnan().tolist() == mean.isnan().tolist() == [False, True, False]
        # given statistics: a nan and an infinity stay where they are
        y[2, 2, 0, 0] = float("inf")
        a, _, _ = op._triton_forward(y, None, None, torch.zeros(3), torch.ones(3), False, 1e-5, "relu", 0.2)
        assert a.isnan().sum() == 1 and a.isinf().sum() == 1


def running_statistics() -> None:
    prepare()
    for channels in (1, 3, 300):
        for dtype in (torch.float32, torch.bfloat16):
            mean, var = torch.randn(channels), torch.rand(channels)
            ours = [torch.randn(channels).to(dtype), torch.rand(channels).to(dtype)]
            plain = [t.clone() for t in ours]
            op._triton_update(*ours, mean, var, 0.3, 7)
            op._reference_update(*plain, mean, var, 0.3, 7)
            for a, b in zip(ours, plain):
                assert torch.allclose(a, b, rtol=1e-6 if dtype == torch.float32 else 2**-7, atol=1e-6)
