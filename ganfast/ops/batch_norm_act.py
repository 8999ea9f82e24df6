"""batch_norm_act: batch normalisation and an activation in one operator (Ioffe and Szegedy 2015).

    a = act(weight·(y − mean)/√(var + eps) + bias)     y: [N, C, ...]; weight, bias: [C]; moments [2, C]: mean and var

batch_norm_act makes the moments of the batch (var is biased), which are a result, and updates the running statistics in
the same launch; normalise_act takes given ones and differentiates in them, too. Moments are fp32 (fp64 for fp64). The
derivatives are in ganfast/reference/batch_norm_act.py; a third one is torch's. The backward reads y again and makes
act'(z) anew, so nothing but y is kept. The second derivative is made of torch's operators on every backend; that of a
piecewise linear activation is absent from it. y and the results lie in one order: contiguous, or channels last.
"""

import functools

import torch

from ganfast import activations
from ganfast.ops import _channels, _checks, _extension, _samples
from ganfast.ops._backends import Kernels
from ganfast.ops._registry import Op
from ganfast.reference.batch_norm_act import batch_norm_act as _reference
from ganfast.reference.batch_norm_act import batch_norm_act_backward as _reference_backward
from ganfast.reference.batch_norm_act import batch_norm_act_double_backward as _reference_double
from ganfast.reference.batch_norm_act import moments_gradient, through_moments
from ganfast.reference.batch_norm_act import normalise_act as _reference_normalise

# --- shapes and checks ------------------------------------------------------------------------------------------------


def check_parameters(y_name, y, channels, weight, bias, eps, activation, slope, prefix=""):
    """Of a normalisation of `channels` channels and the activation behind it; y says the dtype and the device."""
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None:
            _checks.per_channel(prefix + name, v, y_name, y, channels)
    _checks.not_negative("eps", eps)
    activations.check(activation, slope)


def check_running(y_name, y, channels, mean, var, batches, momentum):
    """Running statistics: both or neither."""
    for name, v in (("running_mean", mean), ("running_var", var)):
        if v is not None:
            _checks.per_channel(name, v, y_name, y, channels)
            if v.requires_grad and torch.is_grad_enabled():
                raise ValueError(f"{name}: requires grad, needs to be a buffer, which is updated in place")
    if (mean is None) != (var is None):
        raise ValueError("running_mean, running_var: got one of them, needs both or neither")
    if batches is not None and (batches.dtype != torch.int64 or batches.numel() != 1):
        raise ValueError(f"num_batches_tracked: got {tuple(batches.shape)} of {batches.dtype}, needs one int64")
    if momentum is not None:
        _checks.unit("momentum", momentum)


def check_input(y):
    _checks.floating("y", y)
    if y.dim() < 2:
        raise ValueError(f"y: got shape {tuple(y.shape)}, needs [batch, channels, ...]")


def _check(y, weight, bias, running_mean, running_var, batches, momentum, eps, activation, slope):
    check_input(y)
    check_parameters("y", y, y.shape[1], weight, bias, eps, activation, slope)
    check_running("y", y, y.shape[1], running_mean, running_var, batches, momentum)
    if y.numel() == y.shape[1] != 0:
        raise ValueError(f"y: got shape {tuple(y.shape)}, needs more than one value per channel in training")


def _check_normalise(y, weight, bias, moments, *rest):
    check_input(y)
    check_parameters("y", y, y.shape[1], weight, bias, *rest)
    _checks.sums("moments", moments, (2, y.shape[1]), "y", y)


def _check_backward(da, y, weight, bias, moments, use_batch, *rest):
    _check_normalise(y, weight, bias, moments, *rest)
    _checks.like("da", da, "y", y)


def _check_double(c, c_sums, da, y, *rest):
    _check_backward(da, y, *rest)
    if c is not None:
        _checks.like("c", c, "y", y)
    if c_sums is not None:
        _checks.sums("c_sums", c_sums, (2, y.shape[1]), "y", y)


def _new_double(c, c_sums, da, y, weight, bias, *rest):
    of_affine = [(_channels.new_sums(y) if v is None else v).new_empty(y.shape[1]) for v in (weight, bias)]
    return _channels.new(y), _channels.new(y), *of_affine


# --- derivatives ------------------------------------------------------------------------------------------------------


def _keep(count, ctx, inputs, output):
    """Saves `count` tensors, and options; of two results either may have no cotangent."""
    ctx.set_materialize_grads(isinstance(output, torch.Tensor))
    ctx.save_for_backward(*inputs[:count])
    ctx.options = inputs[count:]


def _backward(ctx, c, c_moments):
    y, *affine, moments = ctx.saved_tensors
    dy = sums = None
    if c is not None:
        dy, sums = batch_norm_act_backward(c, y, *affine, moments, *ctx.options)
    if c_moments is not None:
        through = through_moments(y, moments[0], c_moments)
        dy = through if dy is None else dy + through
    return dy, *_of_affine(affine, sums), *[None] * 7


def _of_affine(affine, sums):
    """The gradients of weight and bias."""
    return [None if v is None or sums is None else sums[i] for i, v in ((1, affine[0]), (0, affine[1]))]


def _normalise_backward(ctx, c):
    y, *affine, moments = ctx.saved_tensors
    # the operator's own derivative takes the moments as constants
    run = _reference_backward if torch.is_grad_enabled() and ctx.needs_input_grad[3] else batch_norm_act_backward
    dy, sums = run(c, y, *affine, moments, False, *ctx.options)
    dmoments = moments_gradient(affine[0], moments, ctx.options[0], sums) if ctx.needs_input_grad[3] else None
    return dy, *_of_affine(affine, sums), dmoments, None, None, None


def _backward_backward(ctx, c, c_sums):
    further = torch.is_grad_enabled()  # create_graph: torch derives the formula, through the batch's moments, too
    double = _reference_double if further else batch_norm_act_double_backward
    da, dy, *of_affine = double(c, c_sums, *ctx.saved_tensors, *ctx.options)
    given = [None if v is None else g for v, g in zip(ctx.saved_tensors[2:], of_affine)]
    return da, dy, *given, *[None] * 5  # of the moments: none, dy has what comes through them


# --- kernels ----------------------------------------------------------------------------------------------------------


def _limit(backend, *args):
    if backend == "triton":
        return args[0].numel() > 0 or "an empty batch goes through the reference"
    if str(args[-2]) not in _extension.activations():
        return f"{args[-2]} goes through the reference: ganfast._C was built without it"
    narrow = len(args) == 10 and any(v is not None and v.dtype is not torch.float32 for v in args[3:5])
    return "running statistics that are not float32 go through the reference" if narrow else True


def _kernels(launcher, at=0):
    """Those of an operator whose args[at] is y, before weight and bias."""

    def layout(*args):
        return _samples.in_one_order(args[at], args, _channels.ordered)

    def cpu_layout(*args):  # parameters are fp32
        args = layout(*args)
        args[at + 1 : at + 3] = [None if v is None else v.float() for v in args[at + 1 : at + 3]]
        return args

    def cpu_operands(*args):
        y, sizes, _ = _channels.lies(args[at])
        *rest, momentum, eps, activation, slope = args[at + 1 :]  # or moments or use_batch, which are not None
        momentum = -1.0 if momentum is None else momentum
        return (
            *args[: at + 1],
            *sizes,
            y.dtype,
            *rest,
            momentum,
            eps,
            _extension.activations().index(str(activation)),
            slope,
        )

    return Kernels(
        f"batch_norm_act.{launcher}",
        cpu_operands,
        triton_operands=lambda *args: (*args[:at], *_channels.lies(args[at]), *args[at + 1 :]),
        layout=cpu_layout,
        triton_layout=layout,
        names=("triton", "cpu"),
        limit=_limit,
    )


# --- the operators ----------------------------------------------------------------------------------------------------

_OPTIONS = "float eps, str? activation, float negative_slope"

batch_norm_act = Op(
    "batch_norm_act(Tensor y, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, Tensor(b!)? running_var, "
    f"Tensor(c!)? batches, float? momentum, {_OPTIONS}) -> (Tensor, Tensor)",
    check=_check,
    fake=lambda y, *rest: (_channels.new(y), _channels.new_sums(y)),
    reference=_reference,
    backends=_kernels("forward"),
    setup=lambda ctx, inputs, output: _keep(4, ctx, (*inputs[:3], output[1], True, *inputs[-3:]), output),
    backward=_backward,
)

normalise_act = Op(
    f"normalise_act(Tensor y, Tensor? weight, Tensor? bias, Tensor moments, {_OPTIONS}) -> Tensor",
    check=_check_normalise,
    fake=lambda y, *rest: _channels.new(y),
    reference=_reference_normalise,
    backends=_kernels("apply"),
    setup=functools.partial(_keep, 4),
    backward=_normalise_backward,
)

batch_norm_act_backward = Op(
    "batch_norm_act_backward(Tensor da, Tensor y, Tensor? weight, Tensor? bias, Tensor moments, bool use_batch, "
    f"{_OPTIONS}) -> (Tensor, Tensor)",
    check=_check_backward,
    fake=lambda da, y, *rest: (_channels.new(y), _channels.new_sums(y)),
    reference=_reference_backward,
    backends=_kernels("backward", at=1),
    setup=functools.partial(_keep, 5),
    backward=_backward_backward,
)

batch_norm_act_double_backward = Op(
    "batch_norm_act_double_backward(Tensor? c, Tensor? c_sums, Tensor da, Tensor y, "
    f"Tensor? weight, Tensor? bias, Tensor moments, bool use_batch, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=_new_double,
    reference=_reference_double,
    backward="it is the second derivative of batch_norm_act, and a third is not written",
)
