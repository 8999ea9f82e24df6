"""sigmoid_bce: both sides' sigmoid cross-entropy in one call (Goodfellow et al. 2014; smoothing, Salimans et al. 2016).

    loss  = Σ_sides mean(softplus(x) − t·x)         x: any shape, t in [0, 1]; scalar, fp32 (fp64 for fp64 logits)
    dx    = g·(σ(x) − t)/n                          shape and dtype of x, contiguous
    of dx, with its cotangent c:  dg = Σ_sides Σ c·(σ(x) − t)/n,   dx = c·g·σ'(x)/n;   a third derivative raises.

An absent side is None; its results are empty tensors. The mean of an empty side is nan, as torch's.
The backward reads the logits again instead of keeping σ(x) − t from the forward: kept in fp16 it would underflow before
a loss scale reaches it, and on a GPU it is 4 bytes a logit less to move. On two CPU cores, 2 × 65,536 logits, it takes
18 µs; scaling kept residuals would take 7 µs, plus what the forward pays to write them.
"""

import torch

from ganfast.ops import _checks
from ganfast.ops._backends import Kernels, Workspace
from ganfast.ops._registry import Op
from ganfast.reference import sigmoid_bce as _reference_loss
from ganfast.reference.sigmoid_bce import sigmoid_bce_backward as _reference_backward
from ganfast.reference.sigmoid_bce import sigmoid_bce_double_backward as _reference_double

# --- shapes and checks ------------------------------------------------------------------------------------------------


def _check(real, fake, real_target, fake_target):
    if real is None and fake is None:
        raise ValueError("real_logits, fake_logits: got None for both, needs at least one")
    if real is not None:
        _checks.floating("real_logits", real)
    if fake is not None:
        _checks.floating("fake_logits", fake)
        if real is not None:
            _checks.alike("fake_logits", fake, "real_logits", real)
    _checks.unit("real_target", real_target)
    _checks.unit("fake_target", fake_target)


def _check_backward(g, real, fake, real_target, fake_target):
    _check(real, fake, real_target, fake_target)
    x = fake if real is None else real
    _checks.floating("g", g)
    _checks.shaped("g", g, ())
    if g.dtype != _sum_dtype(x) or g.device != x.device:
        raise TypeError(f"g: got {g.dtype} on {g.device}, needs {_sum_dtype(x)} on {x.device}, as the loss")


def _check_double(c_real, c_fake, g, real, fake, real_target, fake_target):
    _check_backward(g, real, fake, real_target, fake_target)
    for name, c, x in (("c_real", c_real, real), ("c_fake", c_fake, fake)):
        if (c is None) != (x is None):
            raise ValueError(f"{name}: got {'None' if c is None else 'a tensor'}, needs what its logits are")
        if c is not None:
            _checks.like(name, c, "its logits", x)


def _sum_dtype(x):
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _new_scalar(real, fake):
    x = fake if real is None else real
    return x.new_empty((), dtype=_sum_dtype(x))


def _new_side(x, other):
    """A contiguous result of x's shape; an empty one for an absent side."""
    return other.new_empty(0) if x is None else torch.empty_like(x, memory_format=torch.contiguous_format)


def _new_sides(real, fake):
    return _new_side(real, fake), _new_side(fake, real)


# --- derivatives ------------------------------------------------------------------------------------------------------


def _loss_setup(ctx, inputs, output):
    real, fake, *ctx.targets = inputs
    ctx.save_for_backward(real, fake)


def _loss_backward(ctx, g):
    real, fake = ctx.saved_tensors
    needs_real, needs_fake, *_ = ctx.needs_input_grad
    real, fake = real if needs_real else None, fake if needs_fake else None
    dreal, dfake = sigmoid_bce_backward(g, real, fake, *ctx.targets)
    return None if real is None else dreal, None if fake is None else dfake, None, None


def _backward_setup(ctx, inputs, output):
    g, real, fake, *ctx.targets = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(g, real, fake)


def _backward_backward(ctx, c_real, c_fake):
    g, real, fake = ctx.saved_tensors
    real, fake = None if c_real is None else real, None if c_fake is None else fake
    if real is None and fake is None:
        return None, None, None, None, None
    c_real, c_fake = None if real is None else c_real, None if fake is None else c_fake
    dg, dreal, dfake = sigmoid_bce_double_backward(c_real, c_fake, g, real, fake, *ctx.targets)
    return dg, None if real is None else dreal, None if fake is None else dfake, None, None


# --- kernels ----------------------------------------------------------------------------------------------------------


def _operands(*args):
    """What the extension takes: cotangents; logits, number (−1: absent) and target of each side; the dtype."""
    *cotangents, real, fake, real_target, fake_target = args
    n_real, n_fake = (-1 if x is None else x.numel() for x in (real, fake))
    return *cotangents, real, n_real, real_target, fake, n_fake, fake_target, (fake if real is None else real).dtype


def _cuda_workspace(cuda, real, fake, *rest):
    return cuda.sigmoid_bce_workspace(sum([x.numel() for x in (real, fake) if x is not None]))


_PARTIAL_SUMS = Workspace(  # of the logits, or of their cotangents, which are as many
    torch.float32,
    cuda=_cuda_workspace,
    triton=lambda kernels, real, fake, *rest: kernels.programs(real, fake),
)

# --- the operators ----------------------------------------------------------------------------------------------------

sigmoid_bce = Op(
    "sigmoid_bce(Tensor? real, Tensor? fake, float real_target, float fake_target) -> Tensor",
    check=_check,
    fake=lambda real, fake, *targets: _new_scalar(real, fake),
    reference=_reference_loss,
    backends=Kernels("sigmoid_bce.loss", _operands, workspace=_PARTIAL_SUMS),
    setup=_loss_setup,
    backward=_loss_backward,
)

sigmoid_bce_backward = Op(
    "sigmoid_bce_backward(Tensor g, Tensor? real, Tensor? fake, float real_target, float fake_target) "
    "-> (Tensor, Tensor)",
    check=_check_backward,
    fake=lambda g, real, fake, *targets: _new_sides(real, fake),
    reference=_reference_backward,
    backends=Kernels("sigmoid_bce.backward", _operands),
    setup=_backward_setup,
    backward=_backward_backward,
)

sigmoid_bce_double_backward = Op(
    "sigmoid_bce_double_backward(Tensor? c_real, Tensor? c_fake, Tensor g, Tensor? real, Tensor? fake, "
    "float real_target, float fake_target) -> (Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=lambda c_real, c_fake, g, real, fake, *targets: (_new_scalar(real, fake), *_new_sides(real, fake)),
    reference=_reference_double,
    backends=Kernels("sigmoid_bce.double_backward", _operands, workspace=_PARTIAL_SUMS),
    backward="it is the second derivative of sigmoid_bce, and a third is not written",
)
