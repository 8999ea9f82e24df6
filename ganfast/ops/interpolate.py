"""interpolate: x̂ = ε·x + (1 − ε)·x̃ with one ε per sample (Gulrajani et al. 2017, algorithm 1).

    x̂_i = ε_i·real_i + (1 − ε_i)·fake_i     real, fake: [B, ...], ε: [B], fp32 (fp64 for fp64)

An absent side (None) is zero, which makes the operator its own derivative: with the cotangent c of x̂, that of real is
interpolate(c, None, ε) and that of fake interpolate(None, c, ε), to any order. ε has no derivative.
The result has the order in memory of real (of fake without one): channels_last stays channels_last.
"""

import torch

from ganfast.ops import _checks, _samples
from ganfast.ops._backends import Kernels
from ganfast.ops._registry import Op
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


# --- kernels ----------------------------------------------------------------------------------------------------------


def _layout(real, fake, epsilon):
    return _samples.in_one_order(fake if real is None else real, (real, fake, epsilon))


def _operands(real, fake, epsilon):
    x = fake if real is None else real
    return real, fake, epsilon, x.shape[0], _samples.size(x), x.dtype


# --- the operator -----------------------------------------------------------------------------------------------------

interpolate = Op(
    "interpolate(Tensor? real, Tensor? fake, Tensor epsilon) -> Tensor",
    check=_check,
    fake=_fake,
    reference=_reference,
    backends=Kernels("interpolate.interpolate", _operands, layout=_layout),
    setup=_setup,
    backward=_backward,
)
