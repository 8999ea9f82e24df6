"""norm_act's Triton kernels against the reference in fp64."""

import itertools

import torch
from ganfast.kernels import _statistics
from ganfast.kernels import norm_act as kernels
from interpreted.backends import triton

from ganfast import activations
from ganfast.ops.norm_act import norm_act, norm_act_backward
from ganfast.reference.norm_act import moments_of
from ganfast.reference.norm_act import norm_act as plain
from ganfast.reference.norm_act import norm_act_backward as plain_backward

FORMS = [None, "channel", "sample", "pixel"]
SHAPES = {  # and groups: 0 is the batch
    (3, 6, 3, 5): (0, 2, 6), (2, 32, 2, 2): (0, 1, 4, 32), (9, 1, 2, 4): (0,), (1, 2, 9, 11): (0, 1, 2),
    (17, 9): (0, 1), (2, 20, 3, 1): (1, 4), (2, 2, 2, 3, 3): (2,),
}  # fmt: skip


def prepare(whole):
    """Several chunks and steps even of few numbers; whole: one program for each few sets."""
    torch.manual_seed(0)
    kernels.TILE, kernels.PROGRAMS, _statistics.TILES = 64, 12, 2
    kernels.STEPS, kernels.SHARE = 99, 256 << 10 if whole else 0


def laid(x, last):
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if last and x is not None and x.dim() > 2 else x


def parameter(form, y, last):
    size = {"channel": y.shape[1:2], "sample": y.shape[:2], "pixel": y.shape}.get(form)
    return None if size is None else laid(torch.randn(size), last)


def close(got, wanted, bound, where, scale=0.0):
    """The error is relative to `scale`, the size of what is added up, where that is more than the result."""
    scale = max(float(wanted.double().norm()), float(scale))
    assert got.shape == wanted.shape, (where, got.shape)
    assert float((got.double() - wanted).norm()) <= bound * scale, (where, got, wanted)


def check(y, g, weight, bias, given, groups, act, where):
    """Forward and backward. Errors of sums are relative to those of |dz|·(1 + |x̂|); half types round the tensors."""
    bound = 3e-6 if y.dtype == torch.float32 else 2**-10
    wide = [None if t is None else t.double() for t in (y, weight, bias)]
    options = groups, 1e-5, act, 0.2
    moments = given
    a, found = triton(norm_act, y, weight, bias, given, *options)
    a64, m64 = plain(*wide, None if given is None else given.double(), *options)
    if given is None:
        moments = found
        close(found[0], m64[0], 3e-7, where, found[1].sum().sqrt())
        close(found[1], m64[1], 2e-6, where)
    m64 = given.double() if given is not None else m64
    close(a, a64, bound, where, a64.norm() + 1)
    got = triton(norm_act_backward, g, y, weight, bias, moments, given is not None, *options)
    wanted = plain_backward(g.double(), *wide, m64, given is not None, *options)
    assert a.stride() == got[0].stride() == y.stride()
    close(got[0], wanted[0], bound, where, wanted[0].norm() + g.double().norm())
    for name, v, d, d64 in zip(("weight", "bias"), (weight, bias), got[1:], wanted[1:]):
        if v is None:
            assert d.numel() == 0
        else:
            close(d, d64, bound if v.dim() == y.dim() else 3e-6, (name, where), 4 * g.double().norm())


def all_kernels(last, whole) -> None:
    """Each shape and groups with a pair of forms, an activation and a dtype: the four tests take turns."""
    prepare(whole)
    turns = itertools.count(11 * last + 5 * whole)
    for shape, of in SHAPES.items():
        for groups in of:
            turn = next(turns)
            dtype = (torch.float32, torch.float16)[turn % 3 == 0]
            y, g = (laid(torch.randn(shape), last) for _ in range(2))
            y, g = (2 * y + 3).to(dtype), g.to(dtype)
            forms = FORMS[turn % 4], FORMS[(turn + turn // 4) % 4]
            weight, bias = (parameter(form, y, last) for form in forms)
            weight = weight if turn % 5 or weight is None else weight.to(dtype)
            given = moments_of(laid(torch.randn(shape) + 3, last), groups) if turn % 7 == 0 else None
            act = list(activations.ROWS)[turn % len(activations.ROWS)]
            check(y, g, weight, bias, given, groups, act, (dtype, shape, groups, forms, act))


def variance_and_non_finite(whole) -> None:
    """Mean 1e4, deviation 1: mean and output are within fp32's rounding of 1e4, 5e-4; the variance is right."""
    prepare(whole)
    for last, groups in itertools.product((False, True), (0, 2)):
        where = last, groups
        y = laid(1e4 + torch.randn(3, 6, 4, 4), last)
        a, (mean, var) = triton(norm_act, y, None, None, None, groups, 0.0, None, 0.0)
        a64, (m64, v64) = plain(y.double(), None, None, None, groups, 0.0, None, 0.0)
        close(var, v64, 3e-6, where)
        assert float((mean - m64).abs().max()) <= 1e-3 and float((a - a64).abs().max()) <= 2e-3, where
        for size in (1e19, 1e30):  # squares overflow: the variance is infinite, the mean and the output are not
            y = laid(size * torch.randn(3, 6, 4, 4), last)
            a, (mean, var) = triton(norm_act, y, None, None, None, groups, 1e-5, None, 0.0)
            assert bool(mean.isfinite().all() and a.isfinite().all()) and not var.isnan().any(), (size, where)
        y = laid(torch.randn(3, 6, 3, 3), last)
        y[1, 1, 2, 2] = float("nan")
        a, moments = triton(norm_act, y, None, None, None, groups, 1e-5, "relu", 0.2)
        dy, *_ = triton(norm_act_backward, y, y, None, None, moments, False, groups, 1e-5, "relu", 0.2)
        _, wanted = plain(y, None, None, None, groups, 1e-5, None, 0.2)
        cut = groups or 6
        hurt = wanted[0].isnan().view(-1, cut, 1, 1).expand(3, cut, 6 // cut, 9).reshape(y.shape)
        assert torch.equal(moments.isnan(), wanted.isnan()) and hurt.any() and not hurt.all(), where
        for t in (a, dy):
            assert torch.equal(t.isnan(), hurt), where
