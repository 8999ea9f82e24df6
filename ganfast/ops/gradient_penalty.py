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
from ganfast.ops._extension import DTYPES, call, extension
from ganfast.ops._registry import Backend, Op, guard, on_stream
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
    _checks.floating("c", c)
    _checks.alike("c", c, "g", g)
    _checks.shaped("c", c, g.shape)


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


# --- backends ---------------------------------------------------------------------------------------------------------


def _supports_of(position):
    """supports(...) of an operator whose argument `position` is g."""

    def supports(*args):
        return "float64 goes through the reference" if args[position].dtype == torch.float64 else True

    return supports


def _phi(g, weight, target, one_sided):
    """φ as the kernels take it: 2w/B (nan for an empty batch, whose mean is nan), t, one-sided or not."""
    return 2.0 * weight / g.shape[0] if g.shape[0] else float("nan"), target, one_sided


def _sizes(g):
    return g.shape[0], _samples.size(g), DTYPES[g.dtype]


def _prepare(c_penalty, c_norms, g, norms):
    """The tensors compact and an empty dg."""
    g = _samples.compact(g)
    return c_penalty, None if c_norms is None else c_norms.contiguous(), g, norms.contiguous(), torch.empty_like(g)


def _seedless(results, with_seed):
    """What a kernel takes: no seed where none is asked for."""
    return *results[:2], results[2] if with_seed else None


def _cpu_forward(g, weight, target, one_sided, with_seed):
    g, out = _samples.compact(g), _new_results(g, with_seed)
    results, phi = _seedless(out, with_seed), _phi(g, weight, target, one_sided)
    call(extension().cpu.gradient_penalty, g, *_sizes(g), *phi, *results, torch.get_num_threads())
    return out


def _cpu_backward(c_penalty, c_norms, g, norms, *phi):
    *tensors, dg = _prepare(c_penalty, c_norms, g, norms)
    function = extension().cpu.gradient_penalty_backward
    call(function, *tensors, *_sizes(g), *_phi(g, *phi), dg, torch.get_num_threads())
    return dg


def _cpu_double(c, c_penalty, c_norms, g, norms, *phi):
    *tensors, dg = _prepare(c_penalty, c_norms, g, norms)
    c, out = _samples.in_order_of(dg, c), (*_new_sums(g), dg)
    function = extension().cpu.gradient_penalty_double_backward
    call(function, c, *tensors, *_sizes(g), *_phi(g, *phi), *out, torch.get_num_threads())
    return out


def _workspace(module, g):
    size = module.gradient_penalty_workspace(*_sizes(g))
    return g.new_empty(size, dtype=torch.float64) if size else None


def _cuda_forward(g, weight, target, one_sided, with_seed):
    module = extension().cuda
    g, out = _samples.compact(g), _new_results(g, with_seed)
    results, phi = _seedless(out, with_seed), _phi(g, weight, target, one_sided)
    on_stream(g.device, module.gradient_penalty, g, *_sizes(g), *phi, _workspace(module, g), *results)
    return out


def _cuda_backward(c_penalty, c_norms, g, norms, *phi):
    *tensors, dg = _prepare(c_penalty, c_norms, g, norms)
    function = extension().cuda.gradient_penalty_backward
    on_stream(g.device, function, *tensors, *_sizes(g), *_phi(g, *phi), dg)
    return dg


def _cuda_double(c, c_penalty, c_norms, g, norms, *phi):
    module = extension().cuda
    *tensors, dg = _prepare(c_penalty, c_norms, g, norms)
    c, out = _samples.in_order_of(dg, c), (*_new_sums(g), dg)
    function = module.gradient_penalty_double_backward
    on_stream(g.device, function, c, *tensors, *_sizes(g), *_phi(g, *phi), _workspace(module, g), *out)
    return out


def _triton_forward(g, weight, target, one_sided, with_seed):
    from ganfast.kernels import gradient_penalty as kernels

    g, out = _samples.compact(g), _new_results(g, with_seed)
    sizes, phi = _sizes(g)[:2], _phi(g, weight, target, one_sided)
    workspace = g.new_empty(kernels.workspace(*sizes), dtype=torch.float64)
    with guard(g.device):
        kernels.forward(g, *sizes, *phi, workspace, *_seedless(out, with_seed))
    return out


def _triton_backward(c_penalty, c_norms, g, norms, *phi):
    from ganfast.kernels import gradient_penalty as kernels

    *tensors, dg = _prepare(c_penalty, c_norms, g, norms)
    with guard(g.device):
        kernels.backward(*tensors, *_sizes(g)[:2], *_phi(g, *phi), dg)
    return dg


def _triton_double(c, c_penalty, c_norms, g, norms, *phi):
    from ganfast.kernels import gradient_penalty as kernels

    *tensors, dg = _prepare(c_penalty, c_norms, g, norms)
    c, out = _samples.in_order_of(dg, c), (*_new_sums(g), dg)
    workspace = g.new_empty(kernels.workspace(*_sizes(g)[:2]), dtype=torch.float64)
    with guard(g.device):
        kernels.double_backward(c, *tensors, *_sizes(g)[:2], *_phi(g, *phi), workspace, *out)
    return out


def _in_order(g, x):
    """The reference's elementwise result in the order of the fast ones."""
    return x if _samples.lined_up(g) else x.contiguous()


def _plain_forward(g, weight, target, one_sided, with_seed):
    penalty, norms, seed = _reference(g, weight, target, one_sided)
    return penalty, norms, _in_order(g, seed) if with_seed else g.new_empty(0)


def _plain_backward(c_penalty, c_norms, g, *rest):
    return _in_order(g, _reference_backward(c_penalty, c_norms, g, *rest))


def _plain_double(c, c_penalty, c_norms, g, *rest):
    dc_penalty, dc_norms, dg = _reference_double(c, c_penalty, c_norms, g, *rest)
    return dc_penalty, dc_norms, _in_order(g, dg)


def _backends(position, cuda, triton, cpu):
    supports = _supports_of(position)
    return [Backend("cuda", cuda, supports), Backend("triton", triton, supports), Backend("cpu", cpu, supports)]


# --- the operators ----------------------------------------------------------------------------------------------------

gradient_penalty = Op(
    "gradient_penalty(Tensor g, float weight, float target, bool one_sided, bool with_seed) "
    "-> (Tensor, Tensor, Tensor)",
    check=_check,
    fake=lambda g, weight, target, one_sided, with_seed: _new_results(g, with_seed),
    reference=_plain_forward,
    backends=_backends(0, _cuda_forward, _triton_forward, _cpu_forward),
    setup=_setup,
    backward=_backward,
)

gradient_penalty_backward = Op(
    "gradient_penalty_backward(Tensor? c_penalty, Tensor? c_norms, Tensor g, Tensor norms, "
    "float weight, float target, bool one_sided) -> Tensor",
    check=_check_backward,
    fake=lambda c_penalty, c_norms, g, *rest: _samples.new(g),
    reference=_plain_backward,
    backends=_backends(2, _cuda_backward, _triton_backward, _cpu_backward),
    setup=_backward_setup,
    backward=_backward_backward,
)

gradient_penalty_double_backward = Op(
    "gradient_penalty_double_backward(Tensor c, Tensor? c_penalty, Tensor? c_norms, Tensor g, Tensor norms, "
    "float weight, float target, bool one_sided) -> (Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=lambda c, c_penalty, c_norms, g, *rest: (*_new_sums(g), _samples.new(g)),
    reference=_plain_double,
    backends=_backends(3, _cuda_double, _triton_double, _cpu_double),
    backward="it is the second derivative of gradient_penalty, and a third is not written",
)
