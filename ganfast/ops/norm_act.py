"""norm_act: instance, group, layer or batch normalisation and an activation in one operator.

    a = act(weight·(y − mean)/√(var + eps) + bias)     y: [N, C, ...]; weight, bias: None, [C], [N, C] or like y

groups ≥ 1: moments [2, N, groups], mean and (biased) var of each of `groups` groups of neighbouring channels of each
sample; groups = 0: [2, 1, C], of each channel over the batch. They are a result, or given, and then constants: the
result is empty. Moments are fp32 (fp64 for fp64). The derivatives are in ganfast/reference/norm_act.py; a third one is
torch's. The backward reads y again and makes act'(z) anew, so nothing but y and the parameters is kept. Gradients of
[C] and [N, C] are fp32 as the moments, others as the parameter; that of an absent one is empty. The second derivative
is made of torch's operators on every backend. y, the results and parameters like y lie in one order: contiguous, or
channels last.
"""

import torch

from ganfast import activations
from ganfast.ops import _channels, _checks, _extension, _samples
from ganfast.ops._backends import Kernels
from ganfast.ops._registry import Op
from ganfast.ops.batch_norm_act import check_input
from ganfast.reference.norm_act import norm_act as _reference
from ganfast.reference.norm_act import norm_act_backward as _reference_backward
from ganfast.reference.norm_act import norm_act_double_backward as _reference_double
from ganfast.reference.norm_act import through_moments

# --- shapes and checks ------------------------------------------------------------------------------------------------


def _moments_shape(y, groups):
    return (2, y.shape[0], groups) if groups else (2, 1, y.shape[1])


def _by_pixel(v):
    """Whether a parameter is like y; of [N, C], which is both, not."""
    return v is not None and v.dim() > 2


def _check_parameter(name, v, y):
    _checks.floating(name, v)
    wide = _checks.sum_dtype(y)
    if v.dtype not in (y.dtype, wide):
        raise TypeError(f"{name}: got dtype {v.dtype}, needs {wide} or y's {y.dtype}")
    if v.device != y.device:
        raise ValueError(f"{name}: got device {v.device}, needs {y.device} as y")
    if v.shape not in (y.shape[1:2], y.shape[:2], y.shape):
        shapes = ", ".join(str(tuple(shape)) for shape in (y.shape[1:2], y.shape[:2]))
        raise ValueError(f"{name}: got shape {tuple(v.shape)}, needs {shapes} or {tuple(y.shape)}")


def _check_all(y, weight, bias, moments, groups, eps, activation, slope):
    check_input(y)
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"groups: got {type(groups).__name__}, needs a whole number")
    if groups < 0 or (groups and y.shape[1] % groups):
        raise ValueError(f"groups: got {groups}, needs a divisor of y's {y.shape[1]} channels, or 0 for the batch")
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None:
            _check_parameter(name, v, y)
    if moments is not None:
        _checks.sums("moments", moments, _moments_shape(y, groups), "y", y)
    _checks.not_negative("eps", eps)
    activations.check(activation, slope)


def _check(y, weight, bias, moments, groups, *rest):
    _check_all(y, weight, bias, moments, groups, *rest)
    if moments is None:
        _, batch, count = _moments_shape(y, groups)
        if y.numel() == batch * count != 0:
            raise ValueError(f"y: got shape {tuple(y.shape)}, needs more than one value for each mean and variance")
    elif moments.requires_grad and torch.is_grad_enabled():
        raise ValueError("moments: requires grad, needs to be constant: moments.detach()")


def _check_backward(da, y, weight, bias, moments, given, *rest):
    _check_all(y, weight, bias, moments, *rest)
    _checks.like("da", da, "y", y)


def _check_double(c, c_weight, c_bias, da, y, weight, bias, *rest):
    _check_backward(da, y, weight, bias, *rest)
    if c is not None:
        _checks.like("c", c, "y", y)
    for name, v, parameter in (("c_weight", c_weight, weight), ("c_bias", c_bias, bias)):
        if v is not None:
            _checks.floating(name, v)
            _checks.shaped(name, v, (0,) if parameter is None else parameter.shape)


def _new_moments(y, moments, groups):
    shape = (0,) if moments is not None else _moments_shape(y, groups)
    return y.new_empty(shape, dtype=_checks.sum_dtype(y))


def _new_gradient(y, parameter, dtype=None):
    """Of a parameter, in its own dtype or this one; of an absent one empty."""
    if _by_pixel(parameter):
        return torch.empty_like(_channels.new(y), dtype=parameter.dtype)
    return y.new_empty((0,) if parameter is None else parameter.shape, dtype=dtype or parameter.dtype)


def _new_backward(da, y, weight, bias, *rest):
    return _channels.new(y), *(_new_gradient(y, v, _checks.sum_dtype(y)) for v in (weight, bias))


def _new_double(c, c_weight, c_bias, da, y, weight, bias, *rest):
    wide = _checks.sum_dtype(y)
    of_affine = [_new_gradient(y, v, wide if v is None else v.dtype) for v in (weight, bias)]
    return _channels.new(y), _channels.new(y), *of_affine


# --- derivatives ------------------------------------------------------------------------------------------------------


def _keep(ctx, tensors, options):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.options = options


def _setup(ctx, inputs, output):
    y, weight, bias, moments, *options = inputs
    given = moments is not None
    _keep(ctx, (y, weight, bias, moments if given else output[1]), (given, *options))


def _backward(ctx, c, c_moments):
    y, weight, bias, moments = ctx.saved_tensors
    given, groups, *_ = ctx.options
    dy = dweight = dbias = None
    if c is not None:
        dy, dweight, dbias = norm_act_backward(c, y, weight, bias, moments, *ctx.options)
    if c_moments is not None and not given:
        through = through_moments(y, moments, c_moments, groups)
        dy = through if dy is None else dy + through
    return dy, None if weight is None else dweight, None if bias is None else dbias, *[None] * 5


def _backward_backward(ctx, c, c_weight, c_bias):
    if c is c_weight is c_bias is None:
        return (None,) * 10
    further = torch.is_grad_enabled()  # create_graph: torch derives the formula, through the moments of y, too
    double = _reference_double if further else norm_act_double_backward
    da, dy, dweight, dbias = double(c, c_weight, c_bias, *ctx.saved_tensors, *ctx.options)
    _, _, weight, bias, _ = ctx.saved_tensors
    given = None if weight is None else dweight, None if bias is None else dbias
    return da, dy, *given, *[None] * 6  # of the moments: none, dy has what comes through them


# --- kernels ----------------------------------------------------------------------------------------------------------
# Triton, kernels/norm_act.py, with sizes = (N, C, P) and `last`, whether y lies as [N, P, C]; parameters like y, too:
#     forward(y, sizes, last, weight, bias, moments, groups, eps, activation, slope, a, found)
#     backward(da, y, sizes, last, weight, bias, moments, given, groups, eps, activation, slope, dy, dweight, dbias)
# One of `moments` (given ones) and `found` is None; so are dweight and dbias of absent parameters.


# The CPU takes sizes and `last` singly, y's dtype, and each parameter with its number of dimensions, 3 where like y.

FEW = 16  # pixels of a plane that a vector of the CPU's holds


def _cpu_limit(y, weight, bias, groups, activation):
    if str(activation) not in _extension.activations():
        return f"{activation} goes through the reference: ganfast._C was built without it"
    by_pixel = [v for v in (weight, bias) if _by_pixel(v)]
    if len(by_pixel) == 1:
        return "one of weight and bias like y, and not the other, goes through the reference"
    if any(v.dtype != y.dtype for v in by_pixel):
        return f"weight and bias like y, of another dtype than its {y.dtype}, go through the reference"
    _, (_, channels, plane), last = _channels.apart(_channels.ordered(y))
    if plane < FEW and not last and groups not in (0, channels) and not by_pixel and not weight is bias is None:
        return f"groups of planes of less than {FEW} pixels with numbers of each channel go through the reference"
    return True


def _kernels(launcher, at=0):
    """Those of an operator whose args[at] is y, before weight, bias and moments; what is before it is like y."""

    def limit(backend, *args):
        y, weight, bias = args[at : at + 3]
        if y.numel() == 0:
            return "an empty tensor goes through the reference"
        return backend != "cpu" or _cpu_limit(y, weight, bias, args[-4], args[-2])

    def layout(*args):
        y = _channels.ordered(args[at])
        like = [_samples.in_order_of(y, v) for v in args[:at]]
        affine = [_samples.in_order_of(y, v) if _by_pixel(v) else _channels.dense(v) for v in args[at + 1 : at + 3]]
        return [*like, y, *affine, _channels.dense(args[at + 3]), *args[at + 4 :]]

    def cpu_layout(*args):  # sums are fp32, so are what is not like y
        args = layout(*args)
        args[at + 1 : at + 3] = [v if v is None or _by_pixel(v) else v.float() for v in args[at + 1 : at + 3]]
        return args

    def cpu_operands(*args):
        y, sizes, last = _channels.apart(args[at])
        affine = [word for v in args[at + 1 : at + 3] for word in (v, 0 if v is None else min(v.dim(), 3))]
        *rest, activation, slope = args[at + 3 :]
        code = _extension.activations().index(str(activation))
        return *args[: at + 1], *sizes, last, y.dtype, *affine, *rest, code, slope

    return Kernels(
        f"norm_act.{launcher}",
        cpu_operands,
        triton_operands=lambda *args: (*args[:at], *_channels.apart(args[at]), *args[at + 1 :]),
        layout=cpu_layout,
        triton_layout=layout,
        names=("triton", "cpu"),
        limit=limit,
        none_if_empty=True,
    )


# --- the operators ----------------------------------------------------------------------------------------------------

_OPTIONS = "int groups, float eps, str? activation, float negative_slope"

norm_act = Op(
    f"norm_act(Tensor y, Tensor? weight, Tensor? bias, Tensor? moments, {_OPTIONS}) -> (Tensor, Tensor)",
    check=_check,
    fake=lambda y, weight, bias, moments, groups, *rest: (_channels.new(y), _new_moments(y, moments, groups)),
    reference=_reference,
    backends=_kernels("forward"),
    setup=_setup,
    backward=_backward,
)

norm_act_backward = Op(
    f"norm_act_backward(Tensor da, Tensor y, Tensor? weight, Tensor? bias, Tensor moments, bool given, {_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor)",
    check=_check_backward,
    fake=_new_backward,
    reference=_reference_backward,
    backends=_kernels("backward", at=1),
    setup=lambda ctx, inputs, output: _keep(ctx, inputs[:5], inputs[5:]),
    backward=_backward_backward,
)

norm_act_double_backward = Op(
    "norm_act_double_backward(Tensor? c, Tensor? c_weight, Tensor? c_bias, Tensor da, Tensor y, Tensor? weight, "
    f"Tensor? bias, Tensor moments, bool given, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=_new_double,
    reference=_reference_double,
    backward="it is the second derivative of norm_act, and a third is not written",
)
