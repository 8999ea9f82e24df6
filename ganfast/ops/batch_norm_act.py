"""batch_norm_act: batch normalisation and an activation in one operator (Ioffe and Szegedy 2015).

    a = act(weight·(y − mean)/√(var + eps) + bias)     y: [N, C, ...]; weight, bias: [C]; moments [2, C]: mean and var

batch_norm_act makes the moments of the batch (var is biased), which are a result, and updates the running statistics in
the same launch; normalise_act takes given ones and differentiates in them, too. Moments are fp32 (fp64 for fp64). The
derivatives are in ganfast/reference/batch_norm_act.py; a third one is torch's. The backward reads y again and makes
act'(z) anew, so nothing but y is kept. The second derivative is made of torch's operators on every backend; that of
a piecewise linear activation is absent from it. y and the results have one order in memory: contiguous, or channels last.
"""

import functools
import math

import torch

from ganfast import activations
from ganfast.ops import _checks, _samples
from ganfast.ops._backends import Backend, guard, not_float64
from ganfast.ops._extension import DTYPES, call, extension
from ganfast.ops._registry import Op
from ganfast.reference.batch_norm_act import batch_norm_act as _reference
from ganfast.reference.batch_norm_act import batch_norm_act_backward as _reference_backward
from ganfast.reference.batch_norm_act import batch_norm_act_double_backward as _reference_double
from ganfast.reference.batch_norm_act import moments_gradient, update_running_statistics
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
        raise ValueError(
            f"y: got shape {tuple(y.shape)}, needs more than one value per channel in training (or eval())"
        )


def _check_normalise(y, weight, bias, moments, *rest):
    check_input(y)
    check_parameters("y", y, y.shape[1], weight, bias, *rest)
    _checks.sums("moments", moments, (2, y.shape[1]), "y", y)


def _check_backward(da, y, weight, bias, moments, use_batch, *rest):
    _check_normalise(y, weight, bias, moments, *rest)
    _check_like("da", da, y)


def _check_like(name, v, y):
    _checks.floating(name, v)
    _checks.alike(name, v, "y", y)
    _checks.shaped(name, v, y.shape)


def _check_double(c, c_sums, da, y, *rest):
    _check_backward(da, y, *rest)
    if c is not None:
        _check_like("c", c, y)
    if c_sums is not None:
        _checks.sums("c_sums", c_sums, (2, y.shape[1]), "y", y)


def _channels_last(y):
    """Whether y's memory is that of [N, ..., C]; a contiguous y is not, even if it could be read so, but [N, C] is."""
    if y.is_contiguous():
        return False
    return y.is_contiguous(memory_format=torch.channels_last) if y.dim() == 4 else y.movedim(1, -1).is_contiguous()


def ordered(y):
    """y itself where it is contiguous or channels last, else a contiguous copy."""
    return y if y.is_contiguous() or _channels_last(y) else y.contiguous()


def _new(y):
    """An empty result in the order of ordered(y)."""
    return torch.empty_like(y) if y.is_contiguous() or _channels_last(y) else y.new_empty(y.shape)


def new_sums(y):
    """Two numbers a channel, as moments are."""
    return y.new_empty((2, y.shape[1]), dtype=_checks.sum_dtype(y))


def _new_gradients(y, *parameters):
    sums = _checks.sum_dtype(y)
    return _new(y), *(y.new_empty(y.shape[1], dtype=sums if p is None else p.dtype) for p in parameters)


# --- derivatives ------------------------------------------------------------------------------------------------------


def _setup(ctx, inputs, output):
    y, weight, bias, *_, ctx.eps, ctx.activation, ctx.slope = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y, weight, bias, output[1])


def _backward(ctx, c, c_moments):
    y, weight, bias, moments = ctx.saved_tensors
    dy, sums = None, (None, None)
    if c is not None:
        dy, sums = batch_norm_act_backward(c, y, weight, bias, moments, True, ctx.eps, ctx.activation, ctx.slope)
    if c_moments is not None:
        through = _through_moments(y, c_moments)
        dy = through if dy is None else dy + through
    return dy, _like(weight, sums[1]), _like(bias, sums[0]), *[None] * 7


def _like(parameter, gradient):
    return None if parameter is None or gradient is None else gradient.to(parameter.dtype)


def _through_moments(y, c):
    """The cotangent of y from that of its moments."""
    dims = [d for d in range(y.dim()) if d != 1]
    of_mean, of_var = (v.reshape(-1, *[1] * (y.dim() - 2)) for v in c)
    wide = y.to(_checks.sum_dtype(y))
    total = of_mean + 2 * of_var * (wide - wide.mean(dims, keepdim=True))
    return (total / max(y.numel() // max(y.shape[1], 1), 1)).to(y.dtype)


def _normalise_setup(ctx, inputs, output):
    *tensors, ctx.eps, ctx.activation, ctx.slope = inputs
    ctx.save_for_backward(*tensors)


def _normalise_backward(ctx, c):
    y, weight, bias, moments = ctx.saved_tensors
    # the operator's own derivative takes the moments as constants
    run = _reference_backward if torch.is_grad_enabled() and ctx.needs_input_grad[3] else batch_norm_act_backward
    dy, sums = run(c, y, weight, bias, moments, False, ctx.eps, ctx.activation, ctx.slope)
    dmoments = moments_gradient(weight, moments, ctx.eps, sums) if ctx.needs_input_grad[3] else None
    return dy, _like(weight, sums[1]), _like(bias, sums[0]), dmoments, None, None, None


def _backward_setup(ctx, inputs, output):
    *tensors, ctx.use_batch, ctx.eps, ctx.activation, ctx.slope = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx, c, c_sums):
    da, y, weight, bias, moments = ctx.saved_tensors
    options = ctx.use_batch, ctx.eps, ctx.activation, ctx.slope
    further = torch.is_grad_enabled()  # create_graph: torch derives the formula, through the batch's moments, too
    double = _reference_double if further else batch_norm_act_double_backward
    out = double(c, c_sums, da, y, weight, bias, moments, *options)
    given = None if weight is None else out[2], None if bias is None else out[3]
    return *out[:2], *given, *[None] * 5  # of the moments: none, dy has what comes through them


# --- backends ---------------------------------------------------------------------------------------------------------


@functools.cache
def _codes() -> dict:
    """Activation → its number in compiled code."""
    return {None if name == "None" else name: i for i, name in enumerate(extension().cpu.activations.split())}


def _supports_cpu(*args):
    """Of compiled code, which has the activations that were there when it was built."""
    if args[-2] not in _codes():
        return f"{args[-2]} goes through the reference: ganfast._C was built without it"
    return not_float64(*args)


def dense(v):
    return None if v is None else v.contiguous()


def _wide(v):
    """A parameter as C++ takes it: fp32, contiguous, or None."""
    if v is None or (v.dtype is torch.float32 and v.is_contiguous()):
        return v
    return v.float().contiguous()


def sizes_of(y):
    """[N, C, P] as it lies in memory: batch, channels, elements of a plane; channels last: P = 1."""
    batch, channels, *rest = y.shape
    plane = math.prod(rest)
    return (batch * plane, channels, 1) if _channels_last(y) else (batch, channels, plane)


def lies(y):
    """What the Triton launchers take for y, which is ordered: itself, its sizes, whether its channels are last."""
    sizes = sizes_of(y)
    return y, sizes, sizes[2] == 1


def _updated(*running):
    """Says to autograd that a kernel has written them."""
    torch.autograd.graph.increment_version([v for v in running if v is not None])


def _cpu_apply(y, weight, bias, use_batch, eps, activation, slope, moments):
    a = torch.empty_like(y)
    call(
        extension().cpu.batch_norm_act, y, *sizes_of(y), DTYPES[y.dtype], _wide(weight), _wide(bias), use_batch, eps,
        _codes()[activation], slope, a, *moments, torch.get_num_threads(),
    )  # fmt: skip
    return a


def _cpu_forward(y, weight, bias, running_mean, running_var, batches, momentum, eps, activation, slope):
    y, moments = ordered(y), new_sums(y)
    a = _cpu_apply(y, weight, bias, True, eps, activation, slope, moments)
    running, count = (running_mean, running_var), y.numel() // max(y.shape[1], 1)
    plain = running_mean is None or momentum is None or not count
    if plain or not all(v.dtype is torch.float32 and v.is_contiguous() for v in running):
        update_running_statistics(*running, batches, momentum, moments, count)
        return a, moments
    if batches is not None:
        batches.add_(1)
    unbias = count / (count - 1) if count > 1 else float("nan")
    call(extension().cpu.update_running_statistics, *running, *moments, running_mean.numel(), momentum, unbias)
    _updated(*running)
    return a, moments


def _cpu_normalise(y, weight, bias, moments, *rest):
    return _cpu_apply(ordered(y), weight, bias, False, *rest, moments.contiguous())


def _cpu_backward(da, y, weight, bias, moments, use_batch, eps, activation, slope):
    y = ordered(y)
    da, dy, sums = _samples.in_order_of(y, da), torch.empty_like(y), new_sums(y)
    call(
        extension().cpu.batch_norm_act_backward, da, y, *sizes_of(y), DTYPES[y.dtype], _wide(weight), _wide(bias),
        *moments.contiguous(), use_batch, eps, _codes()[activation], slope, dy, sums[1], sums[0],
        torch.get_num_threads(),
    )  # fmt: skip
    return dy, sums


def triton_forward(y, weight, bias, running_mean, running_var, batches, momentum, eps, activation, slope):
    from ganfast.kernels import batch_norm_act as kernels

    y, moments = ordered(y), new_sums(y)
    a = torch.empty_like(y)
    running = running_mean, running_var, batches
    with guard(y.device):
        kernels.forward(*lies(y), dense(weight), dense(bias), *running, momentum, eps, activation, slope, a, moments)
    _updated(*running)
    return a, moments


def _triton_normalise(y, weight, bias, moments, eps, activation, slope):
    from ganfast.kernels import batch_norm_act as kernels

    y = ordered(y)
    a = torch.empty_like(y)
    with guard(y.device):
        kernels.apply(*lies(y), dense(weight), dense(bias), moments.contiguous(), eps, activation, slope, a)
    return a


def triton_backward(da, y, weight, bias, moments, use_batch, eps, activation, slope):
    from ganfast.kernels import batch_norm_act as kernels

    y = ordered(y)
    da, dy, sums = _samples.in_order_of(y, da), torch.empty_like(y), new_sums(y)
    with guard(y.device):
        kernels.backward(
            da, *lies(y), dense(weight), dense(bias), moments.contiguous(), use_batch, eps, activation, slope, dy, sums
        )
    return dy, sums


def _supports_triton(*args):
    y = next(a for a in args if isinstance(a, torch.Tensor) and a.dim() > 1)
    if not y.numel():
        return "an empty batch goes through the reference"
    running = args[3:5] if len(args) == 10 else ()
    if any(v is not None and not v.is_contiguous() for v in running):
        return "the running statistics have gaps"
    return not_float64(*args)


# --- the operators ----------------------------------------------------------------------------------------------------

_OPTIONS = "float eps, str? activation, float negative_slope"

batch_norm_act = Op(
    "batch_norm_act(Tensor y, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, Tensor(b!)? running_var, "
    f"Tensor(c!)? batches, float? momentum, {_OPTIONS}) -> (Tensor, Tensor)",
    check=_check,
    fake=lambda y, *rest: (_new(y), new_sums(y)),
    reference=_reference,
    backends=[Backend("triton", triton_forward, _supports_triton), Backend("cpu", _cpu_forward, _supports_cpu)],
    setup=_setup,
    backward=_backward,
)

normalise_act = Op(
    f"normalise_act(Tensor y, Tensor? weight, Tensor? bias, Tensor moments, {_OPTIONS}) -> Tensor",
    check=_check_normalise,
    fake=lambda y, *rest: _new(y),
    reference=_reference_normalise,
    backends=[
        Backend("triton", _triton_normalise, _supports_triton),
        Backend("cpu", _cpu_normalise, _supports_cpu),
    ],
    setup=_normalise_setup,
    backward=_normalise_backward,
)

batch_norm_act_backward = Op(
    "batch_norm_act_backward(Tensor da, Tensor y, Tensor? weight, Tensor? bias, Tensor moments, bool use_batch, "
    f"{_OPTIONS}) -> (Tensor, Tensor)",
    check=_check_backward,
    fake=lambda da, y, *rest: (_new(y), new_sums(y)),
    reference=_reference_backward,
    backends=[Backend("triton", triton_backward, _supports_triton), Backend("cpu", _cpu_backward, _supports_cpu)],
    setup=_backward_setup,
    backward=_backward_backward,
)

batch_norm_act_double_backward = Op(
    "batch_norm_act_double_backward(Tensor? c, Tensor? c_sums, Tensor da, Tensor y, "
    f"Tensor? weight, Tensor? bias, Tensor moments, bool use_batch, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=lambda c, c_sums, da, y, weight, bias, *rest: (_new(y), *_new_gradients(y, weight, bias)),
    reference=_reference_double,
    backward="it is the second derivative of batch_norm_act, and a third is not written",
)
