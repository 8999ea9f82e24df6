"""conv_bn_act's Triton kernels against the reference in fp64."""

import random
from unittest import mock

import torch
from ganfast.kernels import conv_bn_act as kernels

from ganfast.ops.conv_bn_act import ACTIVATIONS
from ganfast.reference.activation import activate, through
from ganfast.reference.conv_bn_act import conv_bn_act, conv_bn_act_backward


def seed(number):
    random.seed(number)
    torch.manual_seed(number)


def last(t):
    return None if t is None else t.permute(0, 2, 3, 1).contiguous()


def wide(*args):
    return [a.double() if isinstance(a, torch.Tensor) else a for a in args]


def nan(*shape, dtype=torch.float32):
    return torch.full(shape, float("nan"), dtype=dtype)


def close(got, wanted, bound, *what):
    error = float((got.double() - wanted).norm())
    assert error <= bound * max(float(wanted.norm()), 0.1), (error, float(wanted.norm()), *what)


def factor(weight, order, k_last):
    """[kH, kW, C_k, C_n] of [C_a, C_b, kH, kW], in memory with the one or the other of the channels last."""
    w = weight.permute(2, 3, *order)
    return w.transpose(2, 3).contiguous().transpose(2, 3) if k_last else w.contiguous()


def forward(x, w, geometry, sides, tile, statistics=False, **more):
    y = nan(x.shape[0], *sides, w.shape[3], dtype=x.dtype)
    tile = tile or kernels.choices(x, w, y, geometry)[0]
    partials = nan(kernels.partial_rows(x, w, y, geometry, tile), 3, w.shape[3]) if statistics else None
    kernels.forward(x, w, y, geometry, tile, partials=partials, **more)
    return y, partials


def backward_data(dy, w, shape, geometry, tile, affine, **more):
    dx = nan(*shape, dtype=dy.dtype)
    tile = tile or kernels.choices(dy, w, dx, geometry, True, affine)[0]
    rows = kernels.partial_rows(dy, w, dx, geometry, tile, True)
    sums = nan(2, shape[3])
    partials = nan(rows, *sums.shape) if affine else None
    kernels.backward_data(dy, w, dx, geometry, tile, partials=partials, **more)
    if affine:
        kernels.total(partials, sums)
    return dx, *sums


def backward_weight(x, dy, shape, geometry, tile, **more):
    dw = nan(*shape, dtype=dy.dtype)
    tile = tile or kernels.weight_choices(x, dy, dw, geometry)[0]
    workspace = nan(tile[-1], *shape) if tile[-1] > 1 else None
    kernels.backward_weight(x, dy, dw, geometry, tile, workspace, **more)
    return dw


def check(layer, dtype, affine, in_activation, out_activation, statistics, tiles=(None, None)):
    transposed, n, c_in, c_out, side, kernel, stride, padding, output_padding = layer
    what = layer, dtype, affine, in_activation, out_activation, statistics, tiles
    geometry, bound = (transposed, stride, padding), 3e-6 if dtype == torch.float32 else 2e-3
    x = torch.randn(n, c_in, *side).to(dtype)
    channels = (c_in, c_out) if transposed else (c_out, c_in)
    weight = (torch.randn(*channels, *kernel) / (c_in * kernel[0] * kernel[1]) ** 0.5).to(dtype)
    bias = torch.randn(c_out).to(dtype)
    scale, shift = (torch.rand(c_in) + 0.5, torch.randn(c_in)) if affine else (None, None)
    args = transposed, stride, padding, output_padding, in_activation, 0.2, out_activation, 0.3
    before = {"scale": scale, "shift": shift, "in_activation": in_activation, "in_slope": 0.2}
    after = {"out_activation": out_activation, "out_slope": 0.3}
    k_last = random.random() < 0.5

    wanted = conv_bn_act(*wide(x, scale, shift, weight, bias), *args, statistics)
    w = factor(weight, (0, 1) if transposed else (1, 0), k_last)
    sides = wanted[0].shape[2:]
    y, partials = forward(last(x), w, geometry, sides, tiles[0], statistics, bias=bias, **before, **after)
    close(y, last(wanted[0]), bound, "y", *what)
    mean, dmean, dvar, count = None, None, None, y.numel() / c_out
    if statistics:
        mean, var = nan(c_out), nan(c_out)
        kernels.statistics(partials, mean, var)
        true = torch.var_mean(y.double(), (0, 1, 2), correction=0)
        assert all(torch.allclose(a.double(), b, 1e-5, 1e-6) for a, b in zip((var, mean), true)), what
        dmean, dvar = count * torch.randn(c_out), count * torch.randn(c_out)
        after |= {"p": dmean / count, "q": 2 * dvar / count, "mean": mean}
    dy, y = torch.randn(y.shape).to(dtype), y if statistics or out_activation else None
    plain = None if y is None else y.permute(0, 3, 1, 2)
    wanted = conv_bn_act_backward(
        *wide(dy.permute(0, 3, 1, 2), dmean, dvar, x, scale, shift, weight, plain, mean),
        *args,
        [True, affine, True, True],
    )
    w = factor(weight, (1, 0) if transposed else (0, 1), k_last)
    dx, dscale, dshift = backward_data(
        dy, w, last(x).shape, geometry, tiles[0], affine, y=y, x=last(x), **before, **after
    )
    close(dx, last(wanted[0]), bound, "dx", *what)
    if affine:
        close(dscale, wanted[1], 4 * bound, "dscale", *what)
        close(dshift, wanted[2], 4 * bound, "dshift", *what)
    shape = last(weight).shape
    dw = backward_weight(last(x), dy, shape, geometry, tiles[1], y=y, **before, **after)
    close(dw, last(wanted[3]), 2 * bound, "dw", *what)
    db = nan(c_out, dtype=dtype)
    kernels.bias_gradient(dy, nan(kernels.bias_rows(dy), c_out), db, y=y, **after)
    close(db, wanted[4], 4 * bound, "db", *what)


def any_layer() -> None:
    """Kernels 1 to 5, strides 1 to 3, any padding and output padding, odd sizes, tiles of all sizes."""
    seed(3)
    done = 0
    while done < 12:
        transposed = random.random() < 0.5
        kernel, stride = ([random.randint(1, most) for _ in range(2)] for most in (5, 3))
        padding = [random.randint(0, k) for k in kernel]
        more = [random.randint(0, s - 1) if transposed else 0 for s in stride]
        side = [random.randint(1, 5) for _ in range(2)]
        if transposed:
            sides = [(h - 1) * s - 2 * p + k + o for h, k, s, p, o in zip(side, kernel, stride, padding, more)]
        else:
            sides = [(h + 2 * p - k) // s + 1 for h, k, s, p in zip(side, kernel, stride, padding)]
        if min(sides) < 1:
            continue
        c_in, c_out = random.choice((1, 3, 17, 24)), random.choice((1, 3, 17, 20))
        layer = transposed, random.randint(1, 2), c_in, c_out, side, kernel, stride, padding, more
        affine, statistics = random.random() < 0.6, random.random() < 0.4
        tiles = random.choice(((None, None), ((16, 16, 16, 4, 2), (16, 16, 16, 4, 2, 3))))
        activations = random.choice(ACTIVATIONS) if affine else None, random.choice(ACTIVATIONS)
        dtype = random.choice((torch.float32, torch.float16))
        check(layer, dtype, affine, activations[0], None if statistics else activations[1], statistics, tiles)
        done += 1


class Wide:
    """A kernel, launched with WIDE=True."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *args, **options: self.kernel[grid](*args, **(options | {"WIDE": True}))


def layers_of_gans() -> None:
    """First and last layers; addresses in 64 bits."""
    seed(1)
    first = True, 2, 20, 32, (1, 1), (4, 4), (1, 1), (0, 0), (0, 0)
    images = True, 1, 32, 3, (3, 4), (4, 4), (2, 2), (1, 1), (0, 0)
    critic = False, 1, 3, 32, (6, 4), (4, 4), (2, 2), (1, 1), (0, 0)
    head = False, 3, 64, 1, (4, 4), (4, 4), (1, 1), (0, 0), (0, 0)
    for dtype in (torch.float32, torch.float16):
        check(first, dtype, False, None, None, True)
        check(images, dtype, True, "relu", "tanh", False)
        check(critic, dtype, False, None, "leaky_relu", False)
        check(head, dtype, True, "leaky_relu", None, False)

    names = "forward_kernel", "backward_data_kernel", "backward_weight_kernel"
    with mock.patch.multiple(kernels, **{name: Wide(getattr(kernels, name)) for name in names}):
        check(images, torch.float16, True, "relu", "tanh", False)
        check(critic, torch.float16, False, None, None, True)


def statistics_and_tangent() -> None:
    seed(2)
    geometry = False, (1, 1), (0, 0)
    for pixels in (1, 15):  # the mean is 10,000 times the deviation
        x = torch.randn(3, pixels, pixels, 16)
        w, bias = torch.randn(1, 1, 16, 20) / 4, torch.full((20,), 1e4)
        y, partials = forward(x, w, geometry, (pixels, pixels), (64, 16, 16, 4, 2), True, bias=bias)
        mean, var = nan(20), nan(20)
        kernels.statistics(partials, mean, var)
        true_var, true_mean = torch.var_mean(y.double(), (0, 1, 2), correction=0)
        assert torch.allclose(mean.double(), true_mean, rtol=3e-7, atol=0)
        # a tile's mean is off by an ulp, 1e-3, and lies 1/8 of a deviation from that of all
        assert torch.allclose(var.double(), true_var, rtol=1e-3, atol=0)
        assert (partials[:, 0].sum(0) == 3 * pixels**2).all()

    for activation in ACTIVATIONS:  # out_act'(saved)·conv(x, w)
        for transposed in (False, True):
            x, weight = torch.randn(1, 8, 4, 3), torch.randn(8, 8, 4, 4) / 10
            args = transposed, (2, 2), (1, 1), (0, 0)
            z, *_ = conv_bn_act(*wide(x, None, None, weight, None), *args)
            saved = activate(torch.randn(z.shape), activation, 0.2)
            w = factor(weight, (0, 1) if transposed else (1, 0), True)
            y, _ = forward(
                last(x), w, args[:3], z.shape[2:], None, saved=last(saved), out_activation=activation, out_slope=0.2
            )
            close(y, last(through(z, saved.double(), activation, 0.2)), 3e-6, activation, transposed)
