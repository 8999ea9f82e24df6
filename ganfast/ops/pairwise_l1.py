"""pairwise_l1: similarities of minibatch discrimination (Salimans et al. 2016, section 3.2, arXiv:1606.03498).

    o[i, b]     = Σ_j e_ijb,  e_ijb = exp(−‖rows[i, b] − others[j, b]‖₁)        rows [R, nk, kd], others [B, nk, kd]
    drows_id    = −g_i Σ_j e_ij s_ijd,  dothers_jd = Σ_i g_i e_ij s_ijd         s = sign(rows_id − others_jd), per b
    of those, with cotangents c and t_ij = Σ_d s_ijd (cothers_jd − crows_id):
    dg_i = Σ_j e_ij t_ij,  drows_id = −g_i Σ_j e_ij t_ij s_ijd,  dothers_jd = Σ_i g_i e_ij t_ij s_ijd;  a third raises.

Where `others` is None they are the rows: drows is then the sum of both gradients and dothers an empty tensor. Every
tensor has the dtype of the rows; sums are in fp32. Memory is O((R + B)·nk·kd): e is computed anew in each derivative.
"""

import functools

import torch

from ganfast.ops import _checks
from ganfast.ops._backends import Kernels
from ganfast.ops._registry import Op
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


def _check_backward(g, rows, others):
    _check(rows, others)
    _checks.like("g", g, "m", rows, rows.shape[:2])


def _check_double(crows, cothers, g, rows, others):
    _check_backward(g, rows, others)
    _checks.like("crows", crows, "m", rows, rows.shape)
    if (cothers is None) != (others is None):
        raise ValueError(f"cothers: got {'None' if cothers is None else 'a tensor'}, needs what others is")
    if others is not None:
        _checks.like("cothers", cothers, "m", rows, others.shape)


def _new_sums(rows):
    return rows.new_empty(rows.shape[:2])


def _new_sides(rows, others):
    """Contiguous results of the shapes of both; an empty one where there are no others."""
    return rows.new_empty(rows.shape), rows.new_empty(0 if others is None else others.shape)


# --- derivatives ------------------------------------------------------------------------------------------------------


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _sums_backward(ctx, g):
    rows, others = ctx.saved_tensors
    drows, dothers = pairwise_l1_backward(g, rows, others)
    return drows, None if others is None else dothers


def _backward_backward(ctx, crows, cothers):
    g, rows, others = ctx.saved_tensors
    dg, drows, dothers = pairwise_l1_double_backward(crows, None if others is None else cothers, g, rows, others)
    return dg, drows, None if others is None else dothers


# --- kernels ----------------------------------------------------------------------------------------------------------


def _operands(*args):
    """What the extension takes: cotangents; both tensors; their sizes (others −1: the rows themselves); the dtype."""
    *cotangents, rows, others = args
    count = -1 if others is None else others.shape[0]
    return *cotangents, rows, others, rows.shape[0], count, *rows.shape[1:], rows.dtype


def _across(*args):
    """[nk, kd, n] of each tensor, [nk, n] of g, fp32: the Triton kernels read along the batch."""
    across = [None if x is None else x.movedim(0, -1) for x in args]
    return [x if x is None else x.new_empty(x.shape, dtype=torch.float32).copy_(x) for x in across]


def _limit(backend, *args):
    kd = args[-2].shape[2]
    many = backend == "cuda" and kd > CUDA_MAX_KD
    return f"kernels of {kd} dimensions, the limit is {CUDA_MAX_KD}" if many else True


_kernels = functools.partial(Kernels, operands=_operands, triton_layout=_across, limit=_limit)

# --- the operators ----------------------------------------------------------------------------------------------------

pairwise_l1 = Op(
    "pairwise_l1(Tensor rows, Tensor? others) -> Tensor",
    check=_check,
    fake=lambda rows, others: _new_sums(rows),
    reference=_reference_sums,
    backends=_kernels("pairwise_l1.forward"),
    setup=_setup,
    backward=_sums_backward,
)

pairwise_l1_backward = Op(
    "pairwise_l1_backward(Tensor g, Tensor rows, Tensor? others) -> (Tensor, Tensor)",
    check=_check_backward,
    fake=lambda g, rows, others: _new_sides(rows, others),
    reference=_reference_backward,
    backends=_kernels("pairwise_l1.backward"),
    setup=_setup,
    backward=_backward_backward,
)

pairwise_l1_double_backward = Op(
    "pairwise_l1_double_backward(Tensor crows, Tensor? cothers, Tensor g, Tensor rows, Tensor? others) "
    "-> (Tensor, Tensor, Tensor)",
    check=_check_double,
    fake=lambda crows, cothers, g, rows, others: (_new_sums(rows), *_new_sides(rows, others)),
    reference=_reference_double,
    backends=_kernels("pairwise_l1.double_backward"),
    backward="it is the second derivative of pairwise_l1, and a third is not written",
)
