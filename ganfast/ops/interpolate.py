"""interpolate: x̂ = ε·x + (1 − ε)·x̃ with one ε per sample (Gulrajani et al. 2017, algorithm 1).

    x̂_i = ε_i·real_i + (1 − ε_i)·fake_i     real, fake: [B, ...], ε: [B], fp32 (fp64 for fp64)

An absent side (None) is zero, which makes the operator its own derivative: with the cotangent c of x̂, that of real is
interpolate(c, None, ε) and that of fake interpolate(None, c, ε), to any order. ε has no derivative.
The result has the order in memory of real (of fake without one): channels_last stays channels_last.
"""

import torch

from ganfast.ops import _checks, _samples
from ganfast.ops._extension import DTYPES, call, extension
from ganfast.ops._registry import Backend, Op, guard, on_stream
from ganfast.reference import interpolate as _reference

# --- shapes and checks ------------------------------------------------------------------------------------------------


def _check(real, fake, epsilon):
    if real is None and fake is None:
        raise ValueError("real, fake: got None for both, needs at least one")
    if real is not None:
        _checks.samples("real", real)
    if fake is not None:
        _checks.samples("fake", fake)
        if real is not None:
            _checks.alike("fake", fake, "real", real)
            _checks.shaped("fake", fake, real.shape)
    name, x = ("fake", fake) if real is None else ("real", real)
    _checks.sums("epsilon", epsilon, x.shape[:1], name, x)
    if epsilon.requires_grad and torch.is_grad_enabled():
        raise ValueError("epsilon: requires grad, needs to be a constant (epsilon.detach()): it has no derivative here")


def _fake(real, fake, epsilon):
    return _samples.new(fake if real is None else real)


# --- derivative -------------------------------------------------------------------------------------------------------


def _setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[2])


def _backward(ctx, c):
    (epsilon,) = ctx.saved_tensors
    real = interpolate(c, None, epsilon) if ctx.needs_input_grad[0] else None
    return real, interpolate(None, c, epsilon) if ctx.needs_input_grad[1] else None, None


# --- backends ---------------------------------------------------------------------------------------------------------


def _supports(real, fake, epsilon):
    return "float64 goes through the reference" if epsilon.dtype == torch.float64 else True


def _plain(real, fake, epsilon):
    x = _reference(real, fake, epsilon)
    return x if _samples.lined_up(fake if real is None else real) else x.contiguous()


def _prepare(real, fake, epsilon):
    """Both sides in one order, ε compact, and the empty result."""
    first = _samples.compact(fake if real is None else real)
    second = first if real is None or fake is None else _samples.in_order_of(first, fake)
    sides = (None if real is None else first, None if fake is None else second)
    return *sides, epsilon.contiguous(), torch.empty_like(first)


def _arguments(real, fake, epsilon, out):
    return real, fake, epsilon, out.shape[0], _samples.size(out), DTYPES[out.dtype], out


def _cpu(*args):
    tensors = _prepare(*args)
    call(extension().cpu.interpolate, *_arguments(*tensors), torch.get_num_threads())
    return tensors[-1]


def _cuda(*args):
    tensors = _prepare(*args)
    on_stream(tensors[-1].device, extension().cuda.interpolate, *_arguments(*tensors))
    return tensors[-1]


def _triton(*args):
    from ganfast.kernels import interpolate as kernels

    tensors = _prepare(*args)
    with guard(tensors[-1].device):
        kernels.interpolate(*tensors)
    return tensors[-1]


# --- the operator -----------------------------------------------------------------------------------------------------

interpolate = Op(
    "interpolate(Tensor? real, Tensor? fake, Tensor epsilon) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_plain,
    backends=[
        Backend("cuda", _cuda, _supports),
        Backend("triton", _triton, _supports),
        Backend("cpu", _cpu, _supports),
    ],
    setup=_setup,
    backward=_backward,
)
