"""conv_bn_act: a convolution or transposed convolution, batch normalisation and an activation in one operator.

    u = in_act(gain·(x − mean)/√(var + in_eps) + offset),  z = conv(u, w) + bias
    conv_act:     y = act(z)
    conv_bn_act:  a = act(bn_weight·(z − mean_z)/√(var_z + eps) + bn_bias), with z and its moments; or these alone

Shapes and dtypes are in ganfast/reference/conv_bn_act.py. What stands before the convolution is there in a chain of
layers, in which one leaves z and its moments to the next. The running statistics are updated in the launch that makes
the moments. One backward serves both operators; it makes what the running backward asks for and nothing else.

The second derivative of conv_act without anything before it, a critic's layer, is written here: of a piecewise linear
activation there is none, not even one of zeros, and the derivative of dx is one convolution (the tangent,
act'(z)·conv(c, w), an operator too) and one weight gradient. Under create_graph every other backward is the reference's
formula, which torch differentiates again.
"""

import functools

import torch

from ganfast import activations
from ganfast.ops import _checks
from ganfast.ops import _conv_bn_act_triton as _triton
from ganfast.ops._backends import Backend
from ganfast.ops._registry import Op, cast, in_demand
from ganfast.ops.batch_norm_act import check_parameters, check_running
from ganfast.reference.activation import through, turn
from ganfast.reference.conv_bn_act import conv_act as _reference_act
from ganfast.reference.conv_bn_act import conv_act_tangent as _reference_tangent
from ganfast.reference.conv_bn_act import conv_bn_act as _reference
from ganfast.reference.conv_bn_act import conv_bn_act_backward as _reference_backward

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


def _check_convolution(x, before, weight, bias, geometry, in_eps, in_activation, in_slope):
    """What all operators check; returns the shape of z."""
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
    shape = x.shape[0], weight.shape[c_out], *_sides(x, weight, *geometry)
    if bias is not None:
        _checks.per_channel("bias", bias, "x", x, shape[1])
    moments, gain, offset = before
    if moments is not None:
        _checks.sums("moments", moments, (2, x.shape[1]), "x", x)
        check_parameters("x", x, x.shape[1], gain, offset, in_eps, in_activation, in_slope)
    elif gain is not None or offset is not None or in_activation is not None:
        raise ValueError("moments: got None, needs those of x beside gain, offset and in_activation")
    return shape


def is_from_output(activation) -> bool:
    """Whether conv_act takes it: its backward has y and not z."""
    return activation in activations.ROWS and activations.ROWS[activation].from_output


def _check_output_activation(activation, slope):
    activations.check(activation, slope)
    if not is_from_output(activation):
        names = activations.listed(filter(is_from_output, activations.ROWS))
        raise ValueError(f"activation: got {activation!r}, needs one of {names}")
    if activations.ROWS[activation].has_slope:
        _checks.not_negative("negative_slope", slope)


def _check_act(x, moments, gain, offset, weight, bias, *rest):
    *geometry, in_eps, in_activation, in_slope, activation, slope = rest
    _check_convolution(x, (moments, gain, offset), weight, bias, geometry, in_eps, in_activation, in_slope)
    _check_output_activation(activation, slope)


def _check(x, moments, gain, offset, weight, bias, bn_weight, bn_bias, running_mean, running_var, batches, *rest):
    *geometry, in_eps, in_activation, in_slope, momentum, eps, activation, slope, _ = rest
    before = moments, gain, offset
    shape = _check_convolution(x, before, weight, bias, geometry, in_eps, in_activation, in_slope)
    check_parameters("x", x, shape[1], bn_weight, bn_bias, eps, activation, slope)
    check_running("x", x, shape[1], running_mean, running_var, batches, momentum)
    if shape[0] * shape[2] * shape[3] == 1:
        raise ValueError(f"x: got one value per channel in training, {shape}, needs more to normalise by (or eval())")


def _check_backward(da, dz, dmoments, x, in_moments, gain, offset, weight, bn_weight, bn_bias, y, moments, *rest):
    *geometry, in_eps, in_activation, in_slope, eps, activation, slope, needed = rest
    before = in_moments, gain, offset
    shape = _check_convolution(x, before, weight, None, geometry, in_eps, in_activation, in_slope)
    if da is None and dz is None and dmoments is None:
        raise ValueError("da, dz, dmoments: got None for all, needs at least one")
    if len(needed) != 4 or not any(needed):
        raise ValueError(
            f"needed: got {needed}, needs four, for x, what stands before it, weight and bias, one of them True"
        )
    for name, v in (("da", da), ("dz", dz), ("y", y)):
        if v is not None:
            _checks.like(name, v, "x", x, shape)
    for name, v in (("dmoments", dmoments), ("moments", moments)):
        if v is not None:
            _checks.sums(name, v, (2, shape[1]), "x", x)
    if moments is None:
        if dz is not None or dmoments is not None:
            raise ValueError("moments: got None, needs those of z beside dz and dmoments")
        _check_output_activation(activation, slope)
    else:
        check_parameters("x", x, shape[1], bn_weight, bn_bias, eps, activation, slope)
    if y is None and (activation is not None or moments is not None):
        raise ValueError("y: got None, needs the output: an activation or the moments are differentiated")


def _check_tangent(x, weight, saved, *rest):
    *geometry, activation, slope = rest
    shape = _check_convolution(x, (None,) * 3, weight, None, geometry, 0.0, None, 0.0)
    _check_output_activation(activation, slope)
    if not activations.ROWS[activation].piecewise_linear:
        raise ValueError(f"activation: got {activation!r}, needs one that is piecewise linear")
    _checks.like("saved", saved, "x", x, shape)


def _lower(args, dtype):
    """Under autocast: x and weight lowered, a bias unless it is fp32, the rest as it is."""
    x, moments, gain, offset, weight, bias, *rest = args
    x, weight = cast((x, weight), dtype)
    bias = lowered_bias(bias, dtype)
    return x, moments, gain, offset, weight, bias, *rest


def lowered_bias(bias, dtype):
    """The bias beside x of this dtype: added in fp32, it stays so."""
    return bias if bias is None or bias.dtype is torch.float32 else cast([bias], dtype)[0]


# --- the first derivative ---------------------------------------------------------------------------------------------


def _act_setup(ctx, inputs, output):
    x, moments, gain, offset, weight, _, *ctx.geometry, in_eps, in_activation, in_slope, act, slope = inputs
    ctx.rest = in_eps, in_activation, in_slope, 0.0, act, slope
    ctx.given, ctx.applies = [v is not None for v in inputs[:6]], True
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, moments, gain, offset, weight, None, None, output if act else None, None)


def _setup(ctx, inputs, output):
    x, moments, gain, offset, weight, _, bn_weight, bn_bias, *_ = inputs
    *ctx.geometry, in_eps, in_activation, in_slope, _, eps, activation, slope, ctx.applies = inputs[11:]
    ctx.given, ctx.rest = [v is not None for v in inputs[:8]], (in_eps, in_activation, in_slope, eps, activation, slope)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, moments, gain, offset, weight, bn_weight, bn_bias, *output[1:])


def _act_backward(ctx, dy):
    return (*_gradients(ctx, dy, None, None)[:6], *(None,) * 9)


def _backward(ctx, da, dz, dmoments):
    return (*_gradients(ctx, da, dz, dmoments), *(None,) * 15)


def _gradients(ctx, da, dz, dmoments):
    """Those of x, moments, gain, offset, weight, bias, bn_weight and bn_bias that are asked for."""
    da = da if ctx.applies else None  # else the result is empty
    asked = iter(in_demand(ctx))
    asked = [given and next(asked) for given in (*ctx.given, False, False)][:8]
    if not any(asked) or (da is None and dz is None and dmoments is None):
        return (None,) * 8
    needed = [asked[0], any(asked[1:4]), asked[4], asked[5]]
    needed[2] |= not any(needed)  # bn_weight or bn_bias alone
    saved = ctx.saved_tensors
    written = saved[1] is None and saved[8] is None  # its derivative
    run = _plain_backward if torch.is_grad_enabled() and not written else conv_bn_act_backward
    dx, din, dbefore, dweight, dbias, dbn = run(da, dz, dmoments, *saved, *ctx.geometry, *ctx.rest, needed)
    (doffset, dgain), (dbn_bias, dbn_weight) = (v if v.numel() else (None, None) for v in (dbefore, dbn))
    found = dx, din, dgain, doffset, dweight, dbias, dbn_weight, dbn_bias
    return tuple(v if is_asked else None for v, is_asked in zip(found, asked))


# --- the second derivative of conv_act --------------------------------------------------------------------------------


def _conv(u, weight, geometry):
    return conv_act(u, None, None, None, weight, None, *geometry, 0.0, None, 0.0, None, 0.0)


def _gradient(dz, u, weight, geometry, of):
    """The data gradient (of 0) or the weight gradient (of 2) of z = conv(u, weight); bilinear in its two factors."""
    nothing = 0.0, None, 0.0
    needed = [of == 0, False, of == 2, False]
    results = conv_bn_act_backward(
        dz, None, None, u, None, None, None, weight, None, None, None, None, *geometry, *nothing, *nothing, needed
    )
    return results[0] if of == 0 else results[3]


def _backward_setup(ctx, inputs, output):
    da, _, _, x, moments, _, _, weight, _, _, y, out_moments, *rest = inputs
    ctx.written = moments is None and out_moments is None
    ctx.given = [v is not None for v in inputs[:12]]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(da, x, weight, y)
    *ctx.geometry, _, _, _, _, ctx.activation, ctx.slope, ctx.needed = rest


def _backward_backward(ctx, *cotangents):
    """Cotangents of dx, dweight and dbias → those of da, x, weight and y."""
    if not ctx.written:
        raise NotImplementedError(
            "ganfast::conv_bn_act_backward has no derivative with moments: differentiate the layer, with create_graph"
        )
    da, x, weight, y = ctx.saved_tensors
    if torch.is_autocast_enabled(x.device.type):  # the dtypes are decided already
        with torch.autocast(x.device.type, enabled=False):
            return _backward_backward(ctx, *cotangents)
    asked = iter(in_demand(ctx))
    asked = [given and next(asked) for given in ctx.given]
    of = cotangents[0], cotangents[3], cotangents[4]
    a_x, a_weight, a_bias = (a if needed else None for a, needed in zip(of, (ctx.needed[0], *ctx.needed[2:])))
    results = [None] * 23
    if a_x is None and a_weight is None and a_bias is None:
        return tuple(results)
    dz = through(da, y, ctx.activation, ctx.slope)
    if asked[0] or asked[10]:
        results[0], results[10] = _of_output(ctx, da, x, weight, y, a_x, a_weight, a_bias)
    if asked[3] and a_weight is not None:
        results[3] = _gradient(dz, x, a_weight, ctx.geometry, 0)
    if asked[7] and a_x is not None:
        results[7] = _gradient(dz, a_x, weight, ctx.geometry, 2)
    return tuple(results)


def _of_output(ctx, da, x, weight, y, a_x, a_weight, a_bias):
    """Cotangents of da and y; that of dz is conv(a_x, weight) + conv(x, a_weight) + a_bias."""
    row = activations.ROWS[ctx.activation]
    if a_weight is None and a_bias is None and ctx.activation and row.piecewise_linear:
        return conv_act_tangent(a_x, weight, y, *ctx.geometry, ctx.activation, ctx.slope), None
    pairs = (a_x, weight), (x, a_weight)
    terms = [_conv(*pair, ctx.geometry) for pair in pairs if pair[0] is not None and pair[1] is not None]
    terms += [] if a_bias is None else [a_bias.to(x.dtype).view(1, -1, 1, 1)]
    c = functools.reduce(torch.add, terms).expand(da.shape)
    bent = None if row.piecewise_linear else turn(da * c, y, ctx.activation, ctx.slope)
    return through(c, y, ctx.activation, ctx.slope), bent


def _tangent_setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:3])
    *ctx.geometry, ctx.activation, ctx.slope = inputs[3:]


def _tangent_backward(ctx, dy):
    """As conv_act's own: dz = dy·act'(z) alike."""
    x, weight, saved = ctx.saved_tensors
    asked = iter(in_demand(ctx))
    needed = [next(asked), False, next(asked), False]
    if dy is None or not any(needed):
        return (None,) * 9
    dx, _, _, dweight, *_ = conv_bn_act_backward(
        dy, None, None, x, None, None, None, weight, None, None, saved, None, *ctx.geometry, 0.0, None, 0.0, 0.0,
        ctx.activation, ctx.slope, needed,
    )  # fmt: skip
    return dx if needed[0] else None, dweight if needed[2] else None, *(None,) * 7


# --- backends ---------------------------------------------------------------------------------------------------------


def _supports_tangent(x, weight, *rest):
    # images: on sm_100 the tangent's tile of 3 channels spills
    return _triton.supports(x, weight) if x.shape[1] >= 16 else "fewer than 16 channels go through the reference"


def _supports(x, *rest):
    gaps = any(v is not None and not v.is_contiguous() for v in rest[7:9])
    return "the running statistics have gaps" if gaps else _triton.supports_any(x)


def _supports_backward(da, dz, dmoments, x, *rest):
    if da is not None and (dz is not None or dmoments is not None):
        return "cotangents of the result and of what it is made of go through the reference"
    return _triton.supports_any(x)


def _shape(x, weight, *geometry):
    return x.shape[0], weight.shape[1 if geometry[0] else 0], *_sides(x, weight, *geometry)


def _triton_act(x, moments, gain, offset, weight, bias, *rest):
    *geometry, in_eps, in_activation, in_slope, activation, slope = rest
    before = moments, gain, offset, in_eps, in_activation, in_slope
    return _triton.forward(x, before, weight, bias, geometry, _shape(x, weight, *geometry), activation, slope)[0]


def _triton_tangent(x, weight, saved, *rest):
    *geometry, activation, slope = rest
    return _triton.forward(x, (None,), weight, None, geometry, tuple(saved.shape), activation, slope, saved)[0]


def _triton_layer(x, moments, gain, offset, weight, bias, bn_weight, bn_bias, mean, var, batches, *rest):
    *geometry, in_eps, in_activation, in_slope, momentum, eps, activation, slope, apply = rest
    before = moments, gain, offset, in_eps, in_activation, in_slope
    bn = bn_weight, bn_bias, eps, activation, slope
    running = mean, var, batches, momentum
    shape = _shape(x, weight, *geometry)
    return _triton.layer(x, before, weight, bias, geometry, shape, bn, running, apply)


def _triton_backward(da, dz, dmoments, x, moments, gain, offset, weight, bn_weight, bn_bias, y, out_moments, *rest):
    *geometry, in_eps, in_activation, in_slope, eps, activation, slope, needed = rest
    before = moments, gain, offset, in_eps, in_activation, in_slope
    bn = bn_weight, bn_bias, eps, activation, slope
    return _triton.backward((da, dz, dmoments), x, before, weight, y, out_moments, bn, geometry, needed)


def _plain_backward(da, dz, dmoments, x, in_moments, gain, offset, weight, *rest):
    """The reference's gradients, empty where they are not needed."""
    results = _reference_backward(da, dz, dmoments, x, in_moments, gain, offset, weight, *rest)
    return _triton.filled(results, x, weight)


# --- the operators ----------------------------------------------------------------------------------------------------

_GEOMETRY = "bool transposed, int[2] stride, int[2] padding, int[2] output_padding"
_BEFORE = "float in_eps, str? in_activation, float in_slope"
_INPUT = "Tensor x, Tensor? moments, Tensor? gain, Tensor? offset, Tensor weight"

conv_act = Op(
    f"conv_act({_INPUT}, Tensor? bias, {_GEOMETRY}, {_BEFORE}, str? activation, float slope) -> Tensor",
    check=_check_act,
    fake=_reference_act,
    reference=_reference_act,
    backends=[
        Backend(
            "triton",
            _triton_act,
            lambda *args: _triton.supports(args[0], args[4]),
            measured=lambda x, *rest: _triton.may_win(x),
        )
    ],
    setup=_act_setup,
    backward=_act_backward,
    autocast=_lower,
)

conv_act_tangent = Op(
    f"conv_act_tangent(Tensor x, Tensor weight, Tensor saved, {_GEOMETRY}, str activation, float slope) -> Tensor",
    check=_check_tangent,
    fake=_reference_tangent,
    reference=_reference_tangent,
    backends=[Backend("triton", _triton_tangent, _supports_tangent, measured=lambda x, *rest: _triton.may_win(x))],
    setup=_tangent_setup,
    backward=_tangent_backward,
)

conv_bn_act = Op(
    f"conv_bn_act({_INPUT}, Tensor? bias, Tensor? bn_weight, Tensor? bn_bias, Tensor(a!)? running_mean, "
    f"Tensor(b!)? running_var, Tensor(c!)? batches, {_GEOMETRY}, {_BEFORE}, float? momentum, float eps, "
    "str? activation, float slope, bool apply) -> (Tensor, Tensor, Tensor)",
    check=_check,
    fake=_reference,
    reference=_reference,
    backends=[Backend("triton", _triton_layer, _supports)],
    setup=_setup,
    backward=_backward,
    autocast=_lower,
)

conv_bn_act_backward = Op(
    "conv_bn_act_backward(Tensor? da, Tensor? dz, Tensor? dmoments, Tensor x, Tensor? moments, Tensor? gain, "
    "Tensor? offset, Tensor weight, Tensor? bn_weight, Tensor? bn_bias, Tensor? y, Tensor? out_moments, "
    f"{_GEOMETRY}, {_BEFORE}, float eps, str? activation, float slope, bool[] needed) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    check=_check_backward,
    fake=_plain_backward,
    reference=_plain_backward,
    backends=[Backend("triton", _triton_backward, _supports_backward)],
    setup=_backward_setup,
    backward=_backward_backward,
)
