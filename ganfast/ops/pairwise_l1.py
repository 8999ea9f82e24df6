"""pairwise_l1: similarities of minibatch discrimination (Salimans et al. 2016, section 3.2, arXiv:1606.03498).

    o[i, b]     = Σ_j e_ijb,  e_ijb = exp(−‖rows[i, b] − others[j, b]‖₁)        rows [R, nk, kd], others [B, nk, kd]
    drows_id    = −g_i Σ_j e_ij s_ijd,  dothers_jd = Σ_i g_i e_ij s_ijd         s = sign(rows_id − others_jd), per b
    of those, with cotangents c and t_ij = Σ_d s_ijd (cothers_jd − crows_id):
    dg_i = Σ_j e_ij t_ij,  drows_id = −g_i Σ_j e_ij t_ij s_ijd,  dothers_jd = Σ_i g_i e_ij t_ij s_ijd;  a third raises.

Where `others` is None they are the rows: drows is then the sum of both gradients and dothers an empty tensor. Every
tensor has the dtype of the rows; sums are in fp32. Memory is O((R + B)·nk·kd): e is computed anew in each derivative.
"""

import torch

from ganfast.ops import _checks
from ganfast.ops._extension import DTYPES, call, extension
from ganfast.ops._registry import Backend, Op, guard, on_stream
from ganfast.reference import pairwise_l1 as _reference_sums
from ganfast.reference.pairwise_l1 import pairwise_l1_backward as _reference_backward
from ganfast.reference.pairwise_l1 import pairwise_l1_double_backward as _reference_double

CUDA_MAX_KD = 32  # the CUDA kernels keep a row in registers

# --- shapes and checks ------------------------------------------------------------------------------------------------


def _check(rows, others):
    _checks.floating("m", rows)
    if rows.dim() != 3:
        raise ValueError(f"m: got shape {tuple(rows.shape)}, needs [batch, kernels, kernel dimensions]")
    if others is not None:
        _checks.floating("others", others)
        _checks.alike("others", others, "m", rows)
        if others.dim() != 3 or others.shape[1:] != rows.shape[1:]:
            wanted = ("any", *rows.shape[1:])
            raise ValueError(f"others: got shape {tuple(others.shape)}, needs [{', '.join(map(str, wanted))}] as m")


def _check_like(name, x, rows, shape):
    _checks.floating(name, x)
    _checks.alike(name, x, "m", rows)
    _checks.shaped(name, x, shape)


def _check_backward(g, rows, others):
    _check(rows, others)
    _check_like("g", g, rows, rows.shape[:2])


def _check_double(crows, cothers, g, rows, others):
    _check_backward(g, rows, others)
    _check_like("crows", crows, rows, rows.shape)
    if (cothers is None) != (others is None):
        raise ValueError(f"cothers: got {'None' if cothers is None else 'a tensor'}, needs what others is")
    if others is not None:
        _check_like("cothers", cothers, rows, others.shape)


def _new_sums(rows):
    return rows.new_empty(rows.shape[:2])


def _new_sides(rows, others):
    """Contiguous results of the shapes of both; an empty one where there are no others."""
    return rows.new_empty(rows.shape), rows.new_empty(0 if others is None else others.shape)


# --- derivatives ------------------------------------------------------------------------------------------------------


def _sums_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _sums_backward(ctx, g):
    rows, others = ctx.saved_tensors
    drows, dothers = pairwise_l1_backward(g, rows, others)
    return drows, None if others is None else dothers


def _backward_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward_backward(ctx, crows, cothers):
    g, rows, others = ctx.saved_tensors
    dg, drows, dothers = pairwise_l1_double_backward(crows, None if others is None else cothers, g, rows, others)
    return dg, drows, None if others is None else dothers


# --- backends ---------------------------------------------------------------------------------------------------------


def _rows_of(args):
    """The rows among the arguments of any of the operators: the first tensor of rank 3 has their dtype and kd."""
    return next(a for a in args if isinstance(a, torch.Tensor) and a.dim() == 3)


def _supports(*args):
    return "float64 goes through the reference" if _rows_of(args).dtype == torch.float64 else True


def _supports_cuda(*args):
    kd = _rows_of(args).shape[2]
    return f"kernels of {kd} dimensions, the limit is {CUDA_MAX_KD}" if kd > CUDA_MAX_KD else _supports(*args)


def _pairs(rows, others):
    """What the extension takes for both: tensors, sizes (others −1: the rows themselves), dtype."""
    count = -1 if others is None else others.shape[0]
    return rows, others, rows.shape[0], count, *rows.shape[1:], DTYPES[rows.dtype]


def _compact(*tensors):
    return [None if x is None else x.contiguous() for x in tensors]


def _cpu_sums(rows, others):
    rows, others = _compact(rows, others)
    o = _new_sums(rows)
    call(extension().cpu.pairwise_l1, *_pairs(rows, others), o, torch.get_num_threads())
    return o


def _cpu_backward(g, rows, others):
    g, rows, others = _compact(g, rows, others)
    out = _new_sides(rows, others)
    call(extension().cpu.pairwise_l1_backward, g, *_pairs(rows, others), *out, torch.get_num_threads())
    return out


def _cpu_double(crows, cothers, g, rows, others):
    crows, cothers, g, rows, others = _compact(crows, cothers, g, rows, others)
    out = torch.empty_like(g), *_new_sides(rows, others)
    function = extension().cpu.pairwise_l1_double_backward
    call(function, crows, cothers, g, *_pairs(rows, others), *out, torch.get_num_threads())
    return out


def _cuda_sums(rows, others):
    rows, others = _compact(rows, others)
    o = _new_sums(rows)
    on_stream(rows.device, extension().cuda.pairwise_l1, *_pairs(rows, others), o)
    return o


def _cuda_backward(g, rows, others):
    g, rows, others = _compact(g, rows, others)
    out = _new_sides(rows, others)
    function = extension().cuda.pairwise_l1_backward
    on_stream(rows.device, function, g, *_pairs(rows, others), *out)
    return out


def _cuda_double(crows, cothers, g, rows, others):
    crows, cothers, g, rows, others = _compact(crows, cothers, g, rows, others)
    out = torch.empty_like(g), *_new_sides(rows, others)
    function = extension().cuda.pairwise_l1_double_backward
    on_stream(rows.device, function, crows, cothers, g, *_pairs(rows, others), *out)
    return out


def _across(x):
    """[nk, kd, n] of x, [nk, n] of g, fp32: the Triton kernels read along the batch."""
    if x is None:
        return None
    across = x.movedim(0, -1)
    return across.new_empty(across.shape, dtype=torch.float32).copy_(across)


def _triton_sums(rows, others):
    from ganfast.kernels import pairwise_l1 as kernels

    o = _new_sums(rows)
    with guard(rows.device):
        kernels.forward(_across(rows), _across(others), o)
    return o


def _triton_backward(g, rows, others):
    from ganfast.kernels import pairwise_l1 as kernels

    out = _new_sides(rows, others)
    with guard(rows.device):
        kernels.backward(_across(g), _across(rows), _across(others), *out)
    return out


def _triton_double(crows, cothers, g, rows, others):
    from ganfast.kernels import pairwise_l1 as kernels

    out = torch.empty_like(g, memory_format=torch.contiguous_format), *_new_sides(rows, others)
    with guard(rows.device):
        kernels.double_backward(*map(_across, (crows, cothers, g, rows, others)), *out)
    return out


def _plain_sums(rows, others):
    return _reference_sums(rows, others).contiguous()


def _reference_sides(rows, others, drows, dothers):
    """The reference's gradients as the operator's."""
    return drows.contiguous(), rows.new_empty(0) if others is None else dothers.contiguous()


def _plain_backward(g, rows, others):
    return _reference_sides(rows, others, *_reference_backward(g, rows, others))


def _plain_double(crows, cothers, g, rows, others):
    dg, *sides = _reference_double(crows, cothers, g, rows, others)
    return dg.contiguous(), *_reference_sides(rows, others, *sides)


def _backends(cuda, triton, cpu):
    return [Backend("cuda", cuda, _supports_cuda), Backend("triton", triton, _supports), Backend("cpu", cpu, _supports)]


# --- the operators ----------------------------------------------------------------------------------------------------

pairwise_l1 = Op(
    "pairwise_l1(Tensor rows, Tensor? others) -> Tensor",
    check=_check,
    fake=lambda rows, others: _new_sums(rows),
    reference=_plain_sums,
    backends=_backends(_cuda_sums, _triton_sums, _cpu_sums),
    setup=_sums_setup,
    backward=_sums_backward,
)

pairwise_l1_backward = Op(
    "pairwise_l1_backward(Tensor g, Tensor rows, Tensor? others) -> (Tensor, Tensor)",
    check=_check_backward,
    fake=lambda g, rows, others: _new_sides(rows, others),
    reference=_plain_backward,
    backends=_backends(_cuda_backward, _triton_backward, _cpu_backward),
    setup=_backward_setup,
    backward=_backward_backward,
)

pairwise_l1_double_backward = Op(
    "pairwise_l1_double_backward(Tensor crows, Tensor? cothers, Tensor g, Tensor rows, Tensor? others) "
    "-> (Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=lambda crows, cothers, g, rows, others: (_new_sums(rows), *_new_sides(rows, others)),
    reference=_plain_double,
    backends=_backends(_cuda_double, _triton_double, _cpu_double),
    backward="it is the second derivative of pairwise_l1, and a third is not written",
)
