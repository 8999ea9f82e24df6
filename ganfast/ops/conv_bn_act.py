"""conv_bn_act: one link of a chain of layers; formula, shapes and dtypes are those of ganfast/reference/conv_bn_act.py.

    u = in_act(scale·x + shift),  z = conv(u, w) + bias,  y = out_act(z)  or  y = z with its mean and variance

    dz = dy·out_act'(y)  or  dy + dmean/n + 2·dvar·(y − mean)/n,    du = ∂conv/∂u · dz,    dt = du·in_act'
    dx = dt·scale,  dscale = Σ dt·x,  dshift = Σ dt,  dw = ∂conv/∂w · dz,  dbias = Σ dz

The backward makes what the running backward asks for and nothing else. Its own derivative is made of the two operators
again, so that any order is right. relu and leaky_relu have no second derivative, not even one of zeros: the derivative
of dx of a critic's layer is one convolution (the tangent, out_act'(z)·conv(c, w), a third operator) and one weight
gradient.
"""

import functools

import torch

from ganfast import activations
from ganfast.ops import _checks
from ganfast.ops import _conv_bn_act_triton as _triton
from ganfast.ops._registry import Backend, Op, cast, in_demand
from ganfast.reference.activation import through as derivative
from ganfast.reference.activation import turn
from ganfast.reference.conv_bn_act import channel_sums, link_input, output_gradient, per_channel
from ganfast.reference.conv_bn_act import conv_bn_act as _reference_link
from ganfast.reference.conv_bn_act import conv_bn_act_backward as _reference_backward
from ganfast.reference.conv_bn_act import conv_bn_act_tangent as _reference_tangent
from ganfast.reference.wide import wide

ACTIVATIONS = [name for name, row in activations.ROWS.items() if row.from_output]  # the backward has y, not z
PIECEWISE_LINEAR = [name for name in ACTIVATIONS if name and activations.ROWS[name].piecewise_linear]

# --- checks -----------------------------------------------------------------------------------------------------------


def output_size(size, kernel, transposed, stride, padding, output_padding):
    """Height or width of y."""
    if transposed:
        return (size - 1) * stride - 2 * padding + kernel + output_padding
    return (size + 2 * padding - kernel) // stride + 1


def outputs(x, weight, transposed, *geometry) -> int:
    """How many numbers y has."""
    height, width = (output_size(*of_side) for of_side in _by_side(x, weight, transposed, geometry))
    return x.shape[0] * weight.shape[1 if transposed else 0] * height * width


def _by_side(x, weight, transposed, geometry):
    return zip(x.shape[2:], weight.shape[2:], (transposed,) * 2, *geometry)


def _activation(name, activation, slope_name, slope):
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name}: got {activation!r}, needs one of {activations.listed(ACTIVATIONS)}")
    if activations.ROWS[activation].has_slope:
        _checks.not_negative(slope_name, slope)


def _sides(x, weight, transposed, stride, padding, output_padding):
    """(H', W') of y; ValueError for what no convolution takes."""
    for name, pair, least in (("stride", stride, 1), ("padding", padding, 0), ("output_padding", output_padding, 0)):
        if len(pair) != 2 or not all(isinstance(p, int) and p >= least for p in pair):
            raise ValueError(f"{name}: got {tuple(pair)}, needs two numbers, {least} or more")
    if output_padding[0] >= stride[0] or output_padding[1] >= stride[1]:  # 0 for a plain convolution is smaller
        raise ValueError(f"output_padding: got {tuple(output_padding)}, needs less than the stride {tuple(stride)}")
    if not transposed and max(output_padding):
        raise ValueError(f"output_padding: got {tuple(output_padding)}, needs 0 without transposed")
    geometry = stride, padding, output_padding
    sides = [output_size(*of_side) for of_side in _by_side(x, weight, transposed, geometry)]
    if min(sides) < 1:
        raise ValueError(
            f"x: got {tuple(x.shape[2:])} pixels, which leave {tuple(sides)} with kernel {tuple(weight.shape[2:])}, "
            f"stride {tuple(stride)} and padding {tuple(padding)}; needs at least one"
        )
    return sides


def _check_link(x, scale, shift, weight, geometry, in_activation, in_slope, out_activation, out_slope):
    """What both operators check; returns the shape of y."""
    transposed = geometry[0]
    _checks.floating("x", x)
    if x.dim() != 4:
        raise ValueError(f"x: got shape {tuple(x.shape)}, needs [batch, channels, height, width]")
    _checks.floating("weight", weight)
    _checks.alike("weight", weight, "x", x)
    c_in, c_out = (0, 1) if transposed else (1, 0)
    if weight.dim() != 4 or weight.shape[c_in] != x.shape[1] or not min(weight.shape):
        order = f"[{x.shape[1]}, C_out, kH, kW]" if transposed else f"[C_out, {x.shape[1]}, kH, kW]"
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, needs {order} for x of {x.shape[1]} channels")
    if (scale is None) != (shift is None):
        raise ValueError("scale, shift: got one of them, needs both or neither")
    if scale is not None:
        _checks.sums("scale", scale, x.shape[1:2], "x", x)
        _checks.sums("shift", shift, x.shape[1:2], "x", x)
    elif in_activation is not None:
        raise ValueError(f"in_activation: got {in_activation!r}, needs None without scale and shift")
    _activation("in_activation", in_activation, "in_slope", in_slope)
    _activation("out_activation", out_activation, "out_slope", out_slope)
    return (x.shape[0], weight.shape[c_out], *_sides(x, weight, *geometry))


def _check(x, scale, shift, weight, bias, *rest):
    *geometry, in_activation, in_slope, out_activation, out_slope, statistics = rest
    shape = _check_link(x, scale, shift, weight, geometry, in_activation, in_slope, out_activation, out_slope)
    if bias is not None:
        _checks.floating("bias", bias)
        _checks.alike("bias", bias, "x", x)
        _checks.shaped("bias", bias, shape[1:2])
    if statistics and out_activation is not None:
        raise ValueError(f"out_activation: got {out_activation!r}, needs None with statistics, which are those of y")


def _check_backward(dy, dmean, dvar, x, scale, shift, weight, y, mean, *rest):
    *geometry, in_activation, in_slope, out_activation, out_slope, needed = rest
    shape = _check_link(x, scale, shift, weight, geometry, in_activation, in_slope, out_activation, out_slope)
    if dy is None and dmean is None and dvar is None:
        raise ValueError("dy, dmean, dvar: got None for all, needs at least one")
    if len(needed) != 4 or not any(needed):
        raise ValueError(
            f"needed: got {needed}, needs four, for x, for scale and shift, weight and bias, one of them True"
        )
    for name, v in (("dy", dy), ("y", y)):
        if v is not None:
            _checks.floating(name, v)
            _checks.alike(name, v, "x", x)
            _checks.shaped(name, v, shape)
    for name, v in (("dmean", dmean), ("dvar", dvar), ("mean", mean)):
        if v is not None:
            _checks.sums(name, v, shape[1:2], "x", x)
    if y is None and (out_activation is not None or dmean is not None or dvar is not None):
        raise ValueError("y: got None, needs the output: an activation or the statistics are derived")
    if mean is None and dvar is not None:
        raise ValueError("mean: got None, needs the mean of y beside dvar")


def _check_tangent(x, weight, saved, *rest):
    *geometry, activation, slope = rest
    shape = _check_link(x, None, None, weight, geometry, None, 0.0, activation, slope)
    if activation not in PIECEWISE_LINEAR:
        raise ValueError(f"activation: got {activation!r}, needs one of {', '.join(map(repr, PIECEWISE_LINEAR))}")
    _checks.floating("saved", saved)
    _checks.alike("saved", saved, "x", x)
    _checks.shaped("saved", saved, shape)


def _lower(args, dtype):
    """Under autocast: x, weight and bias lowered, scale and shift as they are."""
    x, scale, shift, weight, bias, *rest = args
    x, weight, bias = cast((x, weight, bias), dtype)
    return x, scale, shift, weight, bias, *rest


# --- the first derivative ---------------------------------------------------------------------------------------------


def _setup(ctx, inputs, output):
    x, scale, shift, weight, _ = inputs[:5]
    *ctx.geometry, in_activation, in_slope, out_activation, out_slope, statistics = inputs[5:]
    ctx.activations = in_activation, in_slope, out_activation, out_slope
    ctx.given = [v is not None for v in inputs[:5]]
    ctx.set_materialize_grads(False)
    y, mean, _ = output
    ctx.save_for_backward(
        x, scale, shift, weight, y if statistics or out_activation else None, mean if statistics else None
    )
    if not statistics:
        ctx.mark_non_differentiable(*output[1:])


def _asked(ctx):
    """Of x, scale or shift, weight, bias: whether their gradients are asked for."""
    asked = iter(in_demand(ctx))
    x, scale, shift, weight, bias = (given and next(asked) for given in ctx.given)
    return [x, scale or shift, weight, bias]


def _backward(ctx, dy, dmean, dvar):
    needed = _asked(ctx)
    none = (None,) * 14
    if (dy is None and dmean is None and dvar is None) or not any(needed):
        return none
    saved = ctx.saved_tensors
    dx, dscale, dshift, dweight, dbias = conv_bn_act_backward(
        dy, dmean, dvar, *saved, *ctx.geometry, *ctx.activations, needed
    )
    affine = (dscale, dshift) if needed[1] else (None, None)
    return (
        dx if needed[0] else None, *affine, dweight if needed[2] else None, dbias if needed[3] else None, *none[5:]
    )  # fmt: skip


# --- the second derivative --------------------------------------------------------------------------------------------

_PLAIN = (None, 0.0, None, 0.0)  # no activation before or after


def _conv(u, weight, geometry):
    return conv_bn_act(u, None, None, weight, None, *geometry, *_PLAIN, False)[0]


def _gradient(dz, u, weight, geometry, of):
    """The data gradient (of 0) or the weight gradient (of 2) of z = conv(u, weight); bilinear in its two factors."""
    needed = [of == 0, False, of == 2, False]
    results = conv_bn_act_backward(dz, None, None, u, None, None, weight, None, None, *geometry, *_PLAIN, needed)
    return results[0] if of == 0 else results[3]


def _sum(*terms):
    """Their sum without those that are None; None of none."""
    terms = [t for t in terms if t is not None]
    return functools.reduce(torch.add, terms) if terms else None


def _times(*factors):
    """Their product; None where one is None."""
    return None if any(f is None for f in factors) else functools.reduce(torch.mul, factors)


def _row(v):
    return None if v is None else per_channel(v)


def _backward_setup(ctx, inputs, output):
    ctx.given = [v is not None for v in inputs[:9]]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:9])
    *ctx.geometry, ctx.in_activation, ctx.in_slope, ctx.out_activation, ctx.out_slope, ctx.needed = inputs[9:]


def _backward_backward(ctx, *cotangents):
    """Cotangents a of (dx, dscale, dshift, dweight, dbias) → gradients of (dy, dmean, dvar, x, …, y, mean)."""
    device = ctx.saved_tensors[3].device.type
    if torch.is_autocast_enabled(device):  # the dtypes are decided already
        with torch.autocast(device, enabled=False):
            return _backward_backward(ctx, *cotangents)
    asked = iter(in_demand(ctx))
    asked = [given and next(asked) for given in ctx.given]
    need_x, need_affine, need_weight, need_bias = ctx.needed
    needed = need_x, need_affine, need_affine, need_weight, need_bias
    a = [c if is_needed else None for c, is_needed in zip(cotangents, needed)]
    if all(c is None for c in a):
        return (None,) * 19
    return *_second_order(ctx, asked, *a), *(None,) * 10


def _second_order(ctx, asked, a_x, a_scale, a_shift, a_weight, a_bias):
    """The backward is bilinear in (dz, weight) and in (dz, u): the cotangents of these, then of what is beyond."""
    dy, dmean, dvar, x, scale, shift, weight, y, mean = ctx.saved_tensors
    through = functools.partial(derivative, activation=ctx.in_activation, slope=ctx.in_slope)
    u = link_input(x, scale, shift, ctx.in_activation, ctx.in_slope)
    dz = output_gradient(dy, dmean, dvar, y, mean, ctx.out_activation, ctx.out_slope)
    a_dt, a_du = None, a_x
    if scale is not None:
        a_dt = _sum(_times(a_x, _row(scale)), _times(x, _row(a_scale)), _row(a_shift))
        a_du = None if a_dt is None else through(a_dt.expand(x.shape), wide(u)).to(x.dtype)

    outer, inner, c_weight = (None,) * 5, (None,) * 3, None
    if any(asked[:3]) or asked[7] or asked[8]:
        outer = _of_dz(ctx, u, a_du, a_weight, a_bias)
    if asked[6] and a_du is not None:
        c_weight = _gradient(dz, a_du, weight, ctx.geometry, 2)
    if any(asked[3:6]):
        c_u = None if a_weight is None else _gradient(dz, u, a_weight, ctx.geometry, 0)
        if scale is None:
            inner = c_u, None, None
        else:
            bent = a_dt is not None and not activations.ROWS[ctx.in_activation].piecewise_linear
            du = _gradient(dz, u, weight, ctx.geometry, 0) if bent or a_x is not None or a_scale is not None else None
            dt = None if du is None else through(wide(du), wide(u))
            c_t = turn(dt * a_dt, wide(u), ctx.in_activation) if bent else None
            c_t = _sum(None if c_u is None else through(wide(c_u), wide(u)), c_t)
            inner = _beyond_t(x, scale, c_t, dt, a_x, a_scale)
    c_dy, c_dmean, c_dvar, c_y, c_mean = outer
    return c_dy, c_dmean, c_dvar, *inner, c_weight, c_y, c_mean


def _of_dz(ctx, u, a_du, a_weight, a_bias):
    """Gradients of dy, dmean, dvar, y, mean; the cotangent of dz is conv(a_du, weight) + conv(u, a_weight) + a_bias."""
    _, dmean, dvar, *_, weight, y, _ = ctx.saved_tensors
    rest = a_weight, a_bias, dmean, dvar
    if a_du is not None and ctx.out_activation in PIECEWISE_LINEAR and all(v is None for v in rest):
        c_dy = conv_bn_act_tangent(a_du, weight, y, *ctx.geometry, ctx.out_activation, ctx.out_slope)
        return c_dy, None, None, None, None
    tangent = None if a_du is None else _conv(a_du, weight, ctx.geometry)
    turned = None if a_weight is None else _conv(u, a_weight, ctx.geometry)
    return _beyond_dz(ctx, _sum(tangent, turned, _row(a_bias)))


def _beyond_t(x, scale, c_t, dt, a_x, a_scale):
    """Gradients of x, scale and shift, in t = scale·x + shift and in dx = dt·scale and dscale = Σ dt·x."""
    c_x = _sum(_times(c_t, _row(scale)), _times(dt, _row(a_scale)))
    c_scale = _sum(_times(a_x, dt), _times(c_t, x))
    return (
        None if c_x is None else c_x.to(x.dtype),
        None if c_scale is None else channel_sums(c_scale),
        None if c_t is None else channel_sums(c_t),
    )


def _beyond_dz(ctx, c):
    """Gradients of dy, dmean, dvar, y and mean from the cotangent c of dz."""
    dy, dmean, dvar, *_, y, mean = ctx.saved_tensors
    c = c.expand((dy if y is None else y).shape)
    c_dy = None if dy is None else derivative(c, y, ctx.out_activation, ctx.out_slope)
    c_y = None if ctx.out_activation is None else turn(dy * c, y, ctx.out_activation)
    if dmean is None and dvar is None:
        return c_dy, None, None, c_y, None
    count, sums = max(y.numel() // y.shape[1], 1), channel_sums(c)
    c_dmean = None if dmean is None else sums / count
    if dvar is None:
        return c_dy, c_dmean, None, c_y, None
    c_dvar = 2 * channel_sums(c * (y - per_channel(mean))) / count
    return c_dy, c_dmean, c_dvar, (c * per_channel(2 * dvar / count)).to(y.dtype), -2 * dvar * sums / count


def _tangent_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])
    *ctx.geometry, ctx.activation, ctx.slope = inputs[3:]


def _tangent_backward(ctx, dy):
    """As the link's own: dz = dy·act'(z) alike."""
    x, weight, saved = ctx.saved_tensors
    asked = iter(in_demand(ctx))
    needed = [next(asked), False, next(asked), False]
    if not any(needed):
        return (None,) * 9
    dx, _, _, dweight, _ = conv_bn_act_backward(
        dy, None, None, x, None, None, weight, saved, None, *ctx.geometry, None, 0.0, ctx.activation, ctx.slope, needed
    )
    return dx if needed[0] else None, dweight if needed[2] else None, *(None,) * 7


# --- backends ---------------------------------------------------------------------------------------------------------


def may_win(x) -> bool:
    """Whether a kernel of ours may be faster than the vendor's: exact fp32 products leave the tensor cores out."""
    return x.dtype is not torch.float32 or torch.backends.cudnn.conv.fp32_precision == "tf32"


def _supports(x, scale, shift, weight, *rest):
    return _triton.supports(x, weight)


def _supports_tangent(x, weight, *rest):
    # images: on sm_100 the tangent's tile of 3 channels spills
    return _triton.supports(x, weight) if x.shape[1] >= 16 else "fewer than 16 channels go through the reference"


def _supports_backward(dy, dmean, dvar, x, scale, shift, weight, *rest):
    return _triton.supports(x, weight)


def _triton_link(x, scale, shift, weight, bias, *rest):
    shape = x.shape[0], weight.shape[1 if rest[0] else 0], *_sides(x, weight, *rest[:4])
    return _triton.forward(x, scale, shift, weight, bias, *rest, shape)


def _triton_tangent(x, weight, saved, *rest):
    *geometry, activation, slope = rest
    link = x, None, None, weight, None, *geometry, None, 0.0, activation, slope, False
    return _triton.forward(*link, tuple(saved.shape), saved)[0]


def _plain_backward(dy, dmean, dvar, x, scale, shift, weight, *rest):
    """The reference's gradients, empty where they are not needed."""
    results = _reference_backward(dy, dmean, dvar, x, scale, shift, weight, *rest)
    kinds = x, x if scale is None else scale, x if scale is None else scale, weight, weight
    return tuple(kind.new_empty(0) if r is None else r for r, kind in zip(results, kinds))


# --- the operators ----------------------------------------------------------------------------------------------------

_GEOMETRY = "bool transposed, int[2] stride, int[2] padding, int[2] output_padding"
_ACTIVATIONS = "str? in_activation, float in_slope, str? out_activation, float out_slope"

conv_bn_act = Op(
    f"conv_bn_act(Tensor x, Tensor? scale, Tensor? shift, Tensor weight, Tensor? bias, {_GEOMETRY}, {_ACTIVATIONS}, "
    "bool statistics) -> (Tensor, Tensor, Tensor)",
    check=_check,
    fake=_reference_link,
    reference=_reference_link,
    backends=[Backend("triton", _triton_link, _supports, measured=lambda x, *rest: may_win(x))],
    setup=_setup,
    backward=_backward,
    autocast=_lower,
)

conv_bn_act_tangent = Op(
    f"conv_bn_act_tangent(Tensor x, Tensor weight, Tensor saved, {_GEOMETRY}, str activation, float slope) -> Tensor",
    check=_check_tangent,
    fake=_reference_tangent,
    reference=_reference_tangent,
    backends=[Backend("triton", _triton_tangent, _supports_tangent, measured=lambda x, *rest: may_win(x))],
    setup=_tangent_setup,
    backward=_tangent_backward,
)

conv_bn_act_backward = Op(
    "conv_bn_act_backward(Tensor? dy, Tensor? dmean, Tensor? dvar, Tensor x, Tensor? scale, Tensor? shift, "
    f"Tensor weight, Tensor? y, Tensor? mean, {_GEOMETRY}, {_ACTIVATIONS}, bool[] needed) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    check=_check_backward,
    fake=_plain_backward,
    reference=_plain_backward,
    backends=[Backend("triton", _triton.backward, _supports_backward, measured=lambda *args: may_win(args[3]))],
    setup=_backward_setup,
    backward=_backward_backward,
)
