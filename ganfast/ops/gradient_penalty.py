"""gradient_penalty: norms of a batch of gradients, the penalty on them and the seed of the tangent sweep.

    n_i = ‖g_i‖₂ over all dimensions but the first      g: [B, ...]; [B], fp32 (fp64 for fp64)
    P   = (1/B) Σ φ(n_i)                                φ(n) = w·(n − t)², one-sided w·max(0, n − t)²; a scalar
    v_i = φ'(n_i)·g_i/(B·n_i)                           the seed, ∂P/∂g: like g; empty where it is not asked for

    of g, with the cotangents c_P of P and c_n of n:  dg = (c_P·φ'/B + c_n)·ĝ,   ĝ = g/n
    of dg's inputs, with its cotangent c and s = ĝ·c:
        dc_P = Σ s_i·φ'_i/B,   dc_n = s,   dg = c_P·(φ'/(B·n)·c + (φ''/B − φ'/(B·n))·s·ĝ) + c_n·(c − s·ĝ)/n

A third derivative raises; so the seed, a first derivative already, can be derived once. Where a norm is below the
smallest normal fp32 number, 1/n counts as 0, and with it the derivatives; but that of φ = w·n² goes on to be 2w·c/B.
The backward reads g and the norms again instead of scaling the seed: in fp16 the seed could underflow before a loss
scale reaches it. A norm takes all elements of a sample alike: a dense g is read in whatever order its dimensions lie.
"""

import torch

from ganfast.ops import _checks, _samples
from ganfast.ops._backends import Kernels, Workspace
from ganfast.ops._extension import DTYPES
from ganfast.ops._registry import Op
from ganfast.reference import gradient_penalty as _reference
from ganfast.reference.gradient_penalty import gradient_penalty_backward as _reference_backward
from ganfast.reference.gradient_penalty import gradient_penalty_double_backward as _reference_double

# --- shapes and checks ------------------------------------------------------------------------------------------------


def _check(g, weight, target, one_sided, with_seed):
    _checks.samples("g", g)
    _checks.not_negative("weight", weight)
    _checks.not_negative("target", target)


def _check_backward(c_penalty, c_norms, g, norms, *phi):
    if c_penalty is None and c_norms is None:
        raise ValueError("c_penalty, c_norms: got None for both, needs at least one")
    _check(g, *phi, False)
    if c_penalty is not None:
        _checks.sums("c_penalty", c_penalty, (), "g", g)
    if c_norms is not None:
        _checks.sums("c_norms", c_norms, g.shape[:1], "g", g)
    _checks.sums("norms", norms, g.shape[:1], "g", g)


def _check_double(c, c_penalty, c_norms, g, norms, *phi):
    _check_backward(c_penalty, c_norms, g, norms, *phi)
    _checks.like("c", c, "g", g)


def _new_sums(g):
    """Empty results: a scalar and one number a sample."""
    dtype = _checks.sum_dtype(g)
    return g.new_empty((), dtype=dtype), g.new_empty(g.shape[:1], dtype=dtype)


def _new_results(g, with_seed):
    return *_new_sums(g), _samples.new(g) if with_seed else g.new_empty(0)


# --- derivatives ------------------------------------------------------------------------------------------------------


def _setup(ctx, inputs, output):
    g, *ctx.phi, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(g, output[1])


def _backward(ctx, c_penalty, c_norms, c_seed):
    g, norms = ctx.saved_tensors
    dg = None
    if c_penalty is not None or c_norms is not None:
        dg = gradient_penalty_backward(c_penalty, c_norms, g, norms, *ctx.phi)
    if c_seed is not None and c_seed.shape == g.shape:
        _, _, bent = gradient_penalty_double_backward(c_seed, norms.new_ones(()), None, g, norms, *ctx.phi)
        dg = bent if dg is None else dg + bent
    return dg, None, None, None, None


def _backward_setup(ctx, inputs, output):
    c_penalty, c_norms, g, norms, *ctx.phi = inputs
    ctx.save_for_backward(c_penalty, c_norms, g, norms)


def _backward_backward(ctx, c):
    c_penalty, c_norms, g, norms = ctx.saved_tensors
    dc_penalty, dc_norms, dg = gradient_penalty_double_backward(c, c_penalty, c_norms, g, norms, *ctx.phi)
    given = None if c_penalty is None else dc_penalty, None if c_norms is None else dc_norms
    return *given, dg, None, None, None, None  # of norms: none, dg has what comes through them


# --- kernels ----------------------------------------------------------------------------------------------------------


def _g_of(args):
    """g among the arguments of any of the operators: the one tensor, or the one before the norms."""
    return [a for a in args if isinstance(a, torch.Tensor)][-2:][0]


def _layout(*args):
    return _samples.in_one_order(_g_of(args), args)


def _operands(*args):
    """Tensors; B, elements of a sample, dtype; φ: 2w/B (nan for an empty batch, whose mean is nan), t, one-sided."""
    *tensors, weight, target, one_sided = args
    g = _g_of(args)
    batch = g.shape[0]
    scale = 2.0 * weight / batch if batch else float("nan")
    return *tensors, batch, _samples.size(g), g.dtype, scale, target, one_sided


_PARTIAL_SUMS = Workspace(  # of g, or of its cotangent, which has its shape
    torch.float64,
    cuda=lambda cuda, g, *rest: cuda.gradient_penalty_workspace(g.shape[0], _samples.size(g), DTYPES[g.dtype]),
    triton=lambda kernels, g, *rest: kernels.workspace(g.shape[0], _samples.size(g)),
)


def _kernels(triton, operands=_operands, **more):
    return Kernels(triton, operands, triton_operands=operands, layout=_layout, **more)


def _plain(g, weight, target, one_sided, with_seed):
    penalty, norms, seed = _reference(g, weight, target, one_sided)
    return penalty, norms, seed if with_seed else None


# --- the operators ----------------------------------------------------------------------------------------------------

gradient_penalty = Op(
    "gradient_penalty(Tensor g, float weight, float target, bool one_sided, bool with_seed) "
    "-> (Tensor, Tensor, Tensor)",
    check=_check,
    fake=lambda g, weight, target, one_sided, with_seed: _new_results(g, with_seed),
    reference=_plain,
    backends=_kernels(
        "gradient_penalty.forward",
        lambda *args: _operands(*args[:-1]),  # without with_seed
        workspace=_PARTIAL_SUMS,
        none_if_empty=True,
    ),
    setup=_setup,
    backward=_backward,
)

gradient_penalty_backward = Op(
    "gradient_penalty_backward(Tensor? c_penalty, Tensor? c_norms, Tensor g, Tensor norms, "
    "float weight, float target, bool one_sided) -> Tensor",
    check=_check_backward,
    fake=lambda c_penalty, c_norms, g, *rest: _samples.new(g),
    reference=_reference_backward,
    backends=_kernels("gradient_penalty.backward"),
    setup=_backward_setup,
    backward=_backward_backward,
)

gradient_penalty_double_backward = Op(
    "gradient_penalty_double_backward(Tensor c, Tensor? c_penalty, Tensor? c_norms, Tensor g, Tensor norms, "
    "float weight, float target, bool one_sided) -> (Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=lambda c, c_penalty, c_norms, g, *rest: (*_new_sums(g), _samples.new(g)),
    reference=_reference_double,
    backends=_kernels("gradient_penalty.double_backward", workspace=_PARTIAL_SUMS),
    backward="it is the second derivative of gradient_penalty, and a third is not written",
)
