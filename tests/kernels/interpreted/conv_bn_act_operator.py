"""conv_bn_act's Triton backend as the operator calls it, against the reference in fp64."""

import itertools
from unittest import mock

import torch

from ganfast.ops import _tuning
from ganfast.ops import conv_bn_act as op
from ganfast.reference.conv_bn_act import conv_bn_act, conv_bn_act_backward


def random(*shape, dtype=torch.float32):
    t = torch.randn(shape).to(dtype)
    return t.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else t


def wide(*args):
    return [a.double() if isinstance(a, torch.Tensor) else a for a in args]


def compare(got, wanted, bound, *what):
    for i, (a, b) in enumerate(zip(got, wanted)):
        if b is None:
            assert a.numel() == 0, (i, *what)
            continue
        assert a.shape == b.shape, (i, a.shape, b.shape, *what)
        assert float((a.double() - b).norm()) <= bound * max(float(b.norm()), 0.1), (i, *what)  # a sum may be 0


SHAPES = [  # transposed, N, C_in, H, W, C_out, kernel, stride, padding, output padding
    (False, 2, 3, 7, 6, 17, (4, 4), (2, 2), (1, 1), (0, 0)),
    (True, 2, 17, 4, 3, 3, (4, 4), (2, 2), (1, 1), (0, 0)),
    (True, 1, 20, 1, 1, 16, (4, 4), (1, 1), (0, 0), (0, 0)),
    (False, 1, 16, 4, 4, 1, (4, 4), (1, 1), (0, 0), (0, 0)),
    (True, 2, 5, 3, 4, 6, (2, 3), (3, 2), (0, 1), (2, 1)),
    (False, 2, 18, 5, 6, 4, (3, 1), (2, 3), (2, 0), (0, 0)),
]
VARIANTS = [  # prologue, its activation, activation behind, statistics
    (False, None, "leaky_relu", False),
    (True, "relu", None, True),
    (True, "tanh", "tanh", False),
    (False, None, None, False),
    (True, "leaky_relu", "relu", False),
    (False, None, None, True),
]


def check(shape, variant, dtype, bound):
    transposed, n, c_in, h, w, c_out, kernel, *geometry = shape
    affine, in_activation, out_activation, statistics = variant
    geometry = transposed, *geometry
    x, scale, shift = random(n, c_in, h, w, dtype=dtype), torch.rand(c_in) + 0.5, torch.randn(c_in)
    weight = random(*((c_in, c_out) if transposed else (c_out, c_in)), *kernel, dtype=dtype) / 3
    bias = random(c_out, dtype=dtype)
    if not affine:
        scale = shift = None
    assert op._supports(x, scale, shift, weight) is True
    activations = in_activation, 0.2, out_activation, 0.3
    args = x, scale, shift, weight, bias, *geometry, *activations, statistics
    got = op._triton_link(*args)
    wanted = conv_bn_act(*wide(*args))
    compare(got, wanted if statistics else wanted[:1], bound, shape, variant, dtype)
    assert got[0].is_contiguous(memory_format=torch.channels_last)
    y, mean, _ = got
    dy = random(*y.shape, dtype=dtype)
    seeds = (dy, torch.randn(c_out), torch.randn(c_out)) if statistics else (dy, None, None)
    saved = (y, mean) if statistics else (y, None) if out_activation else (None, None)
    for needed in ([True, affine, True, True], [True, False, False, False], [False, affine, True, False]):
        args = *seeds, x, scale, shift, weight, *saved, *geometry, *activations, needed
        compare(op._triton.backward(*args), conv_bn_act_backward(*wide(*args)), bound, shape, variant, dtype, needed)
    if statistics:
        for one in ((None, seeds[1], None), (None, None, seeds[2]), (dy, None, None)):
            args = *one, x, scale, shift, weight, y, mean, *geometry, *activations, [True, affine, True, True]
            compare(op._triton.backward(*args), conv_bn_act_backward(*wide(*args)), bound, shape, variant, "one seed")


def first(key, candidates, device):
    return next(iter(candidates))


def operator(part, parts) -> None:
    """Part `part` of `parts` of the layers and variants."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    with mock.patch.object(_tuning, "choose", first):
        for i, (shape, variant) in enumerate(itertools.product(SHAPES, VARIANTS)):
            if i % parts == part:
                check(shape, variant, torch.float32, 2e-5)
                if i % 3 == 0:
                    check(shape, variant, torch.float16, 8e-3)
