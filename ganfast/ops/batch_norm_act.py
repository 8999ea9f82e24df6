"""batch_norm_act: batch normalisation and an activation in one operator (Ioffe and Szegedy 2015).

    a = act(weight·(y − mean)/√(var + eps) + bias)     y: [N, C, ...]; weight, bias, mean, var: [C]

mean and var (biased) are those of the batch, or the running ones; they are results, too: fp32 (fp64 for fp64). The
derivatives are in ganfast/reference/batch_norm_act.py; a third one is torch's. The backward reads y again and makes
act'(z) anew, so nothing but y is kept. The second derivative is made of torch's operators on every backend; that of
ReLU and LeakyReLU is absent from it. y and the results have one order in memory: contiguous, or channels last.
"""

import math

import torch

from ganfast.ops import _checks, _samples
from ganfast.ops._backends import not_float64
from ganfast.ops._extension import DTYPES, call, extension
from ganfast.ops._registry import Backend, Op, guard
from ganfast.reference import batch_norm_act as _reference
from ganfast.reference.batch_norm_act import batch_norm_act_backward as _reference_backward
from ganfast.reference.batch_norm_act import batch_norm_act_double_backward as _reference_double
from ganfast.reference.batch_norm_act import update_running_statistics as _reference_update

ACTIVATIONS = {None: 0, "relu": 1, "leaky_relu": 2, "tanh": 3}  # the codes of csrc/ops.h

# --- shapes and checks ------------------------------------------------------------------------------------------------


def _check_normalisation(y, weight, bias, eps, activation, slope):
    _checks.floating("y", y)
    if y.dim() < 2:
        raise ValueError(f"y: got shape {tuple(y.shape)}, needs [batch, channels, ...]")
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None:
            _checks.per_channel(name, v, "y", y, y.shape[1])
    _checks.not_negative("eps", eps)
    check_activation(activation, slope)


def check_activation(activation, slope):
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}, needs one of 'relu', 'leaky_relu', 'tanh' or None")
    if not isinstance(slope, (int, float)):
        raise TypeError(f"negative_slope: got {type(slope).__name__}, needs a number")
    if not math.isfinite(slope):
        raise ValueError(f"negative_slope: got {slope}, needs a finite number")


def _check(y, weight, bias, running_mean, running_var, use_batch, eps, activation, slope):
    _check_normalisation(y, weight, bias, eps, activation, slope)
    for name, v in (("running_mean", running_mean), ("running_var", running_var)):
        if v is not None:
            _checks.per_channel(name, v, "y", y, y.shape[1])
        elif not use_batch:
            raise ValueError(f"{name}: got None, needs a tensor [{y.shape[1]}] in evaluation")
    if use_batch and y.numel() == y.shape[1] != 0:
        raise ValueError(
            f"y: got shape {tuple(y.shape)}, needs more than one value per channel in training (or eval())"
        )


def _check_backward(da, y, weight, bias, mean, var, use_batch, eps, activation, slope):
    _check_normalisation(y, weight, bias, eps, activation, slope)
    for name, v in (("mean", mean), ("var", var)):
        _checks.sums(name, v, y.shape[1:2], "y", y)
    _check_like("da", da, y)


def _check_like(name, v, y):
    _checks.floating(name, v)
    _checks.alike(name, v, "y", y)
    _checks.shaped(name, v, y.shape)


def _check_double(c, c_weight, c_bias, da, y, *rest):
    _check_backward(da, y, *rest)
    if c is not None:
        _check_like("c", c, y)
    for name, v in (("c_weight", c_weight), ("c_bias", c_bias)):
        if v is not None:
            _checks.per_channel(name, v, "y", y, y.shape[1])


def _check_update(running_mean, running_var, mean, var, momentum, count):
    for name, v in (("running_mean", running_mean), ("running_var", running_var), ("mean", mean), ("var", var)):
        _checks.floating(name, v)
        _checks.shaped(name, v, running_mean.shape)
        if v.device != running_mean.device:
            raise ValueError(f"{name}: got device {v.device}, needs {running_mean.device} as running_mean")
    _checks.unit("momentum", momentum)


def _channels_last(y):
    """Whether y's memory is that of [N, ..., C]; a contiguous y is not, even if it could be read so, but [N, C] is."""
    if y.is_contiguous():
        return False
    return y.is_contiguous(memory_format=torch.channels_last) if y.dim() == 4 else y.movedim(1, -1).is_contiguous()


def _ordered(y):
    """y itself where it is contiguous or channels last, else a contiguous copy."""
    return y if y.is_contiguous() or _channels_last(y) else y.contiguous()


def _new(y):
    """An empty result in the order of _ordered(y)."""
    return torch.empty_like(y) if y.is_contiguous() or _channels_last(y) else y.new_empty(y.shape)


def _new_channels(y):
    return y.new_empty(y.shape[1], dtype=_checks.sum_dtype(y))


def _new_parameter(parameter, y):
    return _new_channels(y) if parameter is None else torch.empty_like(parameter, memory_format=torch.contiguous_format)


def _new_gradients(y, weight, bias):
    return _new(y), _new_parameter(weight, y), _new_parameter(bias, y)


# --- derivatives ------------------------------------------------------------------------------------------------------


def _setup(ctx, inputs, output):
    y, weight, bias, _, _, *ctx.options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y, weight, bias, *output[1:])


def _backward(ctx, c, c_mean, c_var):
    y, weight, bias, mean, var = ctx.saved_tensors
    dy = dweight = dbias = None
    if c is not None:
        dy, dweight, dbias = batch_norm_act_backward(c, y, weight, bias, mean, var, *ctx.options)
    if ctx.options[0] and (c_mean is not None or c_var is not None):
        through = _through_statistics(y, c_mean, c_var)
        dy = through if dy is None else dy + through
    return dy, None if weight is None else dweight, None if bias is None else dbias, *[None] * 6


def _through_statistics(y, c_mean, c_var):
    """The cotangent of y from those of the batch's mean and var; the running ones are constants."""
    dims = [d for d in range(y.dim()) if d != 1]
    shape = (-1, *[1] * (y.dim() - 2))
    wide = y.to(_checks.sum_dtype(y))
    total = torch.zeros_like(wide)
    if c_mean is not None:
        total = total + c_mean.reshape(shape)
    if c_var is not None:
        total = total + 2 * c_var.reshape(shape) * (wide - wide.mean(dims, keepdim=True))
    return (total / max(y.numel() // max(y.shape[1], 1), 1)).to(y.dtype)


def _backward_setup(ctx, inputs, output):
    *tensors, ctx.use_batch, ctx.eps, ctx.activation, ctx.slope = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx, c, c_weight, c_bias):
    da, y, weight, bias, mean, var = ctx.saved_tensors
    options = ctx.use_batch, ctx.eps, ctx.activation, ctx.slope
    further = torch.is_grad_enabled()  # create_graph: torch derives the formula, through the batch's mean and var, too
    double = _reference_double if further else batch_norm_act_double_backward
    out = double(c, c_weight, c_bias, da, y, weight, bias, mean, var, *options)
    given = None if weight is None else out[2], None if bias is None else out[3]
    return *out[:2], *given, *[None] * 6  # of mean and var: none, dy has what comes through them


# --- backends ---------------------------------------------------------------------------------------------------------


def _dense(v):
    return None if v is None else v.contiguous()


def _wide(v):
    """A parameter as C++ takes it: fp32, contiguous, or None."""
    if v is None or (v.dtype is torch.float32 and v.is_contiguous()):
        return v
    return v.float().contiguous()


def _sizes(y):
    """[N, C, P] as it lies in memory: batch, channels, elements of a plane; channels last: P = 1."""
    batch, channels, *rest = y.shape
    plane = math.prod(rest)
    return (batch * plane, channels, 1) if _channels_last(y) else (batch, channels, plane)


def _statistics(y, running_mean, running_var, use_batch):
    """mean and var: empty, to be filled with the batch's, or copies of the running ones."""
    if use_batch:
        return _new_channels(y), _new_channels(y)
    return tuple(v.to(_checks.sum_dtype(y), copy=True).contiguous() for v in (running_mean, running_var))


def _cpu_forward(y, weight, bias, running_mean, running_var, use_batch, eps, activation, slope):
    y = _ordered(y)
    out = torch.empty_like(y), *_statistics(y, running_mean, running_var, use_batch)
    call(
        extension().cpu.batch_norm_act, y, *_sizes(y), DTYPES[y.dtype], _wide(weight), _wide(bias), use_batch, eps,
        ACTIVATIONS[activation], slope, *out, torch.get_num_threads(),
    )  # fmt: skip
    return out


def _cpu_backward(da, y, weight, bias, mean, var, use_batch, eps, activation, slope):
    y = _ordered(y)
    da, dy = _samples.in_order_of(y, da), torch.empty_like(y)
    out = dy, _new_channels(y), _new_channels(y)
    call(
        extension().cpu.batch_norm_act_backward, da, y, *_sizes(y), DTYPES[y.dtype],
        *map(_wide, (weight, bias, mean, var)), use_batch, eps, ACTIVATIONS[activation], slope, *out,
        torch.get_num_threads(),
    )  # fmt: skip
    return _like_parameters(out, weight, bias)


def _triton_forward(y, weight, bias, running_mean, running_var, use_batch, eps, activation, slope):
    from ganfast.kernels import batch_norm_act as kernels

    y = _ordered(y)
    out = torch.empty_like(y), *_statistics(y, running_mean, running_var, use_batch)
    if not y.numel():
        return (out[0], *(v.fill_(float("nan")) for v in out[1:])) if use_batch else out
    sizes, last = _sizes(y), _sizes(y)[2] == 1
    partial = y.new_empty(kernels.workspace(*sizes, last) if use_batch else 0, dtype=torch.float32)
    with guard(y.device):
        kernels.forward(
            y, sizes, last, _dense(weight), _dense(bias), use_batch, eps, ACTIVATIONS[activation], slope, partial, *out
        )
    return out


def _triton_backward(da, y, weight, bias, mean, var, use_batch, eps, activation, slope):
    from ganfast.kernels import batch_norm_act as kernels

    y = _ordered(y)
    da, out = _samples.in_order_of(y, da), (torch.empty_like(y), _new_channels(y), _new_channels(y))
    if not y.numel():
        return _like_parameters((out[0], out[1].zero_(), out[2].zero_()), weight, bias)
    sizes, last = _sizes(y), _sizes(y)[2] == 1
    partial = y.new_empty(kernels.workspace(*sizes, last), dtype=torch.float32)
    with guard(y.device):
        kernels.backward(
            da, y, sizes, last, *map(_dense, (weight, bias, mean, var)), use_batch, eps, ACTIVATIONS[activation], slope,
            partial, *out,
        )  # fmt: skip
    return _like_parameters(out, weight, bias)


def _cpu_update(running_mean, running_var, mean, var, momentum, count):
    call(
        extension().cpu.update_running_statistics, running_mean, running_var, _wide(mean), _wide(var),
        running_mean.numel(), momentum, _unbias(count),
    )  # fmt: skip
    torch.autograd.graph.increment_version((running_mean, running_var))


def _unbias(count):
    """The unbiased variance over the biased one."""
    return count / (count - 1) if count > 1 else float("nan")


def _supports_cpu_update(running_mean, running_var, mean, var, momentum, count):
    for v in (running_mean, running_var):
        if v.dtype is not torch.float32 or not v.is_contiguous():
            return "the running statistics are not float32 without gaps"
    return "float64 goes through the reference" if mean.dtype is torch.float64 else True


def _supports_update(running_mean, running_var, mean, var, momentum, count):
    if any(v.dtype == torch.float64 for v in (running_mean, running_var, mean, var)):
        return "float64 goes through the reference"
    return True if all(v.is_contiguous() for v in (running_mean, running_var)) else "the running statistics have gaps"


def _triton_update(running_mean, running_var, mean, var, momentum, count):
    from ganfast.kernels import batch_norm_act as kernels

    if running_mean.numel():
        with guard(running_mean.device):
            kernels.update(running_mean, running_var, mean.contiguous(), var.contiguous(), momentum, _unbias(count))
        torch.autograd.graph.increment_version((running_mean, running_var))


def _like_parameters(out, weight, bias):
    """dy, dweight and dbias, these in the dtype of their parameters."""
    pairs = zip(out[1:], (weight, bias))
    return out[0], *(v if p is None else v.to(p.dtype) for v, p in pairs)


# --- the operators ----------------------------------------------------------------------------------------------------

_OPTIONS = "bool use_batch, float eps, str? activation, float negative_slope"

batch_norm_act = Op(
    "batch_norm_act(Tensor y, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, "
    f"{_OPTIONS}) -> (Tensor, Tensor, Tensor)",
    check=_check,
    fake=lambda y, *rest: (_new(y), _new_channels(y), _new_channels(y)),
    reference=_reference,
    backends=[Backend("triton", _triton_forward, not_float64), Backend("cpu", _cpu_forward, not_float64)],
    setup=_setup,
    backward=_backward,
)

batch_norm_act_backward = Op(
    "batch_norm_act_backward(Tensor da, Tensor y, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, "
    f"{_OPTIONS}) -> (Tensor, Tensor, Tensor)",
    check=_check_backward,
    fake=lambda da, y, weight, bias, *rest: _new_gradients(y, weight, bias),
    reference=_reference_backward,
    backends=[Backend("triton", _triton_backward, not_float64), Backend("cpu", _cpu_backward, not_float64)],
    setup=_backward_setup,
    backward=_backward_backward,
)

batch_norm_act_double_backward = Op(
    "batch_norm_act_double_backward(Tensor? c, Tensor? c_weight, Tensor? c_bias, Tensor da, Tensor y, "
    f"Tensor? weight, Tensor? bias, Tensor mean, Tensor var, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=lambda c, c_weight, c_bias, da, y, weight, bias, *rest: (_new(y), *_new_gradients(y, weight, bias)),
    reference=_reference_double,
    backward="it is the second derivative of batch_norm_act, and a third is not written",
)

update_running_statistics_ = Op(
    "update_running_statistics_(Tensor(a!) running_mean, Tensor(b!) running_var, Tensor mean, Tensor var, "
    "float momentum, SymInt count) -> ()",
    check=_check_update,
    fake=lambda *args: None,
    reference=_reference_update,
    backends=[Backend("triton", _triton_update, _supports_update), Backend("cpu", _cpu_update, _supports_cpu_update)],
    backward=None,
)
