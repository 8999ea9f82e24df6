"""conv_bn_act on its Triton kernels, as the operators call them, against the reference in fp64."""

import itertools
import random
from unittest import mock

import torch
from ganfast.kernels import _statistics
from ganfast.kernels import conv_bn_act as kernels

from ganfast import activations
from ganfast.ops import _conv_bn_act_triton as triton
from ganfast.ops import _tuning
from ganfast.ops import conv_bn_act as op
from ganfast.reference.activation import activate
from ganfast.reference.conv_bn_act import conv_act, conv_act_tangent, conv_bn_act, conv_bn_act_backward

FROM_OUTPUT = [name for name in activations.ROWS if op.is_from_output(name)]


def seed(number):
    random.seed(number)
    torch.manual_seed(number)


def laid(t):
    return t.contiguous(memory_format=torch.channels_last)


def wide(*args):
    return [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]


def compare(got, wanted, bound, *what):
    for i, (a, b) in enumerate(zip(got, wanted)):
        if b is None or b.numel() == 0:
            assert a is None or a.numel() == 0, (i, *what)
            continue
        assert a.shape == b.shape, (i, a.shape, b.shape, *what)
        error, size = float((a.double() - b).norm()), max(float(b.norm()), 0.1)  # a sum may be 0,
        size = 10.0 if i == 4 and "apply" in what else size  # as that of dz behind a normalisation
        assert error <= bound * size, (i, error, float(b.norm()), *what)


def chosen(tiles, way):
    """Instead of measuring: `way`, and these tiles where they are given."""

    def choose(key, candidates, device, by_host=False):
        if way in candidates:
            return way
        names = [n for n in candidates if tiles and n.strip("(").startswith(str(tiles[0])[1:])] or list(candidates)
        return names[0]

    found = [mock.patch.object(_tuning, "choose", choose)]
    if tiles:
        found.append(mock.patch.object(kernels, "choices", lambda *args, **more: [tiles[0]]))
        found.append(mock.patch.object(kernels, "weight_choices", lambda *args, **more: [tiles[1]]))
    return found


class Layer:
    """Random tensors of (transposed, N, C_in, C_out, side, kernel, stride, padding, output padding)."""

    def __init__(self, layer, dtype, before, in_activation, k_last=False):
        transposed, n, c_in, c_out, side, kernel, *geometry = layer
        self.x = laid(torch.randn(n, c_in, *side).to(dtype))
        order = (c_in, c_out) if transposed else (c_out, c_in)
        weight = (torch.randn(*order, *kernel) / (c_in * kernel[0] * kernel[1]) ** 0.5).to(dtype)
        self.weight = weight if k_last else laid(weight)
        self.bias, self.geometry = torch.randn(c_out).to(dtype), (transposed, *geometry)
        self.moments = torch.stack((torch.randn(c_in), torch.rand(c_in) + 0.5)) if before else None
        self.gain, self.offset = (torch.rand(c_in) + 0.5, torch.randn(c_in)) if before else (None, None)
        if random.random() < 0.3:
            self.gain = None
        self.bn = torch.rand(c_out) + 0.5, torch.randn(c_out)
        if random.random() < 0.3:
            self.bn = None, self.bn[1]
        self.running = torch.randn(c_out), torch.rand(c_out), torch.tensor(random.randint(1, 9))
        self.in_tail = (1e-3, in_activation, 0.2) if before else (0.0, None, 0.0)

    @property
    def inputs(self):
        return self.x, self.moments, self.gain, self.offset, self.weight, self.bias


def check(layer, dtype, before, in_activation, activation, form, tiles=None, way="triton"):
    """form: None (conv_act), "apply" or "leave" (conv_bn_act)."""
    what = layer, dtype, before, in_activation, activation, form, tiles, way
    bound = 5e-6 if dtype == torch.float32 else 4e-3
    made = Layer(layer, dtype, before, in_activation)
    momentum = random.choice((0.3, None))
    with (
        mock.patch.object(triton, "may_win", lambda x: True),
        mock.patch.object(triton, "supports", lambda *args: True),
    ):
        patches = chosen(tiles, way)
        for patch in patches:
            patch.start()
        try:
            if form is None:
                args = *made.inputs, *made.geometry, *made.in_tail, activation, 0.3
                y = op._triton_act(*args)
                compare([y], [conv_act(*wide(*args))], bound, "y", *what)
                moments, eps = None, 0.0
            else:
                behind, eps = (activation, 0.3) if form == "apply" else (None, 0.0), 1e-3
                tail = *made.geometry, *made.in_tail, momentum, eps, *behind, form == "apply"
                ours, true = ([t.clone() for t in made.running] for _ in range(2))
                true[:2] = wide(*true[:2])
                a, y, moments = op._triton_layer(*made.inputs, *made.bn, *ours, *tail)
                wanted = conv_bn_act(*wide(*made.inputs, *made.bn), *true, *tail)
                compare([a, y, moments], wanted, bound, "forward", *what)
                compare(ours[:2], true[:2], 1e-5 if dtype == torch.float32 else 1e-3, "running", *what)
                assert ours[2] == true[2] == made.running[2] + 1
                assert y.is_contiguous(memory_format=torch.channels_last)
            seeds = [laid(torch.randn(y.shape).to(dtype)), None, None]
            every = [seeds]
            if form == "leave":
                dmoments = torch.randn(moments.shape) * y.numel() / y.shape[1]
                every = [(None, seeds[0], dmoments), (None, None, dmoments), (None, seeds[0], None)]
            saved = y if form or activation else None, moments
            behind = (activation, 0.3) if form != "leave" else (None, 0.0)
            for cotangents, needed in itertools.product(
                every, ([True, before, True, True], [True, False, False, False], [False, before, True, False])
            ):
                args = *made.inputs[:5], *made.bn, *saved, *made.geometry, *made.in_tail, eps, *behind, needed
                got = op._triton_backward(*cotangents, *args)
                compare(got, conv_bn_act_backward(*wide(*cotangents, *args)), 3 * bound, "backward", needed, *what)
        finally:
            for patch in patches:
                patch.stop()


GANS = [  # the layers of DCGAN, narrow
    (True, 2, 20, 32, (1, 1), (4, 4), (1, 1), (0, 0), (0, 0)),
    (True, 1, 32, 3, (3, 4), (4, 4), (2, 2), (1, 1), (0, 0)),
    (False, 1, 3, 32, (6, 4), (4, 4), (2, 2), (1, 1), (0, 0)),
    (False, 3, 64, 1, (4, 4), (4, 4), (1, 1), (0, 0), (0, 0)),
]


class Wide:
    """A kernel, launched with WIDE=True."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *args, **options: self.kernel[grid](*args, **(options | {"WIDE": True}))


def layers_of_gans() -> None:
    """First and last layers; addresses in 64 bits; a pass of its own for the statistics."""
    seed(1)
    first, images, critic, head = GANS
    for dtype in (torch.float32, torch.float16):
        check(first, dtype, False, None, "relu", "apply")
        check(images, dtype, True, "relu", "tanh", None)
        check(critic, dtype, False, None, "leaky_relu", None)
        check(head, dtype, True, "leaky_relu", None, None)
    check(critic, torch.float32, False, None, "leaky_relu", "apply", way="vendor")
    check(images, torch.float32, True, "relu", "relu", "leave", way="vendor")
    names = "forward_kernel", "backward_data_kernel", "backward_weight_kernel"
    with mock.patch.multiple(kernels, **{name: Wide(getattr(kernels, name)) for name in names}):
        check(images, torch.float16, True, "relu", "tanh", None)
        check(critic, torch.float16, False, None, None, "leave")


def any_layer(part) -> None:
    """Kernels 1 to 5, strides 1 to 3, any padding and output padding, odd sizes, tiles of all sizes."""
    seed(3 + part)
    done = 0
    while done < 8:
        transposed = random.random() < 0.5
        kernel, stride = ([random.randint(1, most) for _ in range(2)] for most in (5, 3))
        padding = [random.randint(0, k) for k in kernel]
        more = [random.randint(0, s - 1) if transposed else 0 for s in stride]
        side = [random.randint(1, 5) for _ in range(2)]
        if transposed:
            sides = [(h - 1) * s - 2 * p + k + o for h, k, s, p, o in zip(side, kernel, stride, padding, more)]
        else:
            sides = [(h + 2 * p - k) // s + 1 for h, k, s, p in zip(side, kernel, stride, padding)]
        if min(sides) < 1 or sides == [1, 1]:
            continue
        c_in, c_out = random.choice((1, 3, 17, 24)), random.choice((1, 3, 17, 20))
        layer = transposed, random.randint(1, 2), c_in, c_out, side, kernel, stride, padding, more
        form, before = random.choice((None, "apply", "leave")), random.random() < 0.6
        tiles = random.choice((None, ((16, 16, 16, 4, 2), (16, 16, 16, 4, 2, 3))))
        kinds = random.choice(list(activations.ROWS)) if before else None
        activation = random.choice(list(activations.ROWS) if form else FROM_OUTPUT)
        check(layer, random.choice((torch.float32, torch.float16)), before, kinds, activation, form, tiles)
        done += 1


def moments_far_from_zero() -> None:
    """Of a convolution whose mean is 10,000 times its deviation."""
    seed(2)
    geometry = False, (1, 1), (0, 0), (0, 0)
    with mock.patch.object(kernels, "choices", lambda *args, **more: [(64, 16, 16, 4, 2)]):
        for pixels in (1, 15):
            x, weight = laid(torch.randn(3, 16, pixels, pixels)), torch.randn(20, 16, 1, 1) / 4
            shape = 3, 20, pixels, pixels
            y, partials = triton.forward(
                x, (None,), weight, torch.full((20,), 1e4), geometry, shape, None, 0.0, statistics=True
            )
            moments = torch.full((2, 20), float("nan"))
            _statistics.finalise(partials, moments, None, None, None, 0.0, 3 * pixels**2)
            true_var, true_mean = torch.var_mean(y.double(), (0, 2, 3), correction=0)
            assert torch.allclose(moments[0].double(), true_mean, rtol=3e-7, atol=0)
            # a tile's mean is off by an ulp, 1e-3, and lies 1/8 of a deviation from that of all
            assert torch.allclose(moments[1].double(), true_var, rtol=1e-3, atol=0)
            assert (partials[:, 0].sum(0) == 3 * pixels**2).all()


def tangent() -> None:
    """act'(saved)·conv(x, w)."""
    seed(4)
    linear = [name for name in FROM_OUTPUT if name and activations.ROWS[name].piecewise_linear]
    for activation, transposed in itertools.product(linear, (False, True)):
        made = Layer((transposed, 2, 8, 8, (4, 3), (4, 4), (2, 2), (1, 1), (0, 0)), torch.float32, False, None)
        z = conv_act(made.x, None, None, None, made.weight, None, *made.geometry)
        saved = laid(activate(torch.randn(z.shape), activation, 0.2))
        args = made.x, made.weight, saved, *made.geometry, activation, 0.2
        for patch in (patches := chosen(None, "triton")):
            patch.start()
        compare([op._triton_tangent(*args)], [conv_act_tangent(*wide(*args))], 3e-6, activation, transposed)
        for patch in patches:
            patch.stop()
