"""Minibatch discrimination's similarities (Salimans et al. 2016, section 3.2) and their two derivatives, plain PyTorch.

    o[i, b] = Σ_j e_ijb,   e_ijb = exp(−‖rows[i, b] − others[j, b]‖₁)

rows [R, nk, kd], others [B, nk, kd] (None: the rows themselves); o [R, nk]. The sum runs over all j, for the rows
themselves j = i included, as in the paper: every entry has the constant term exp(0) = 1. The subgradient of |·| at 0 is
0. Sums are in fp32 (fp64 for fp64), results in the dtype of the rows. These forms hold an R×B×nk×kd tensor.
"""

import torch

from ganfast.reference.wide import wide


def _wide(*tensors):
    return [x if x is None else wide(x) for x in tensors]


def _pairs(rows, others):
    """signs [R, B, nk, kd] and e [R, B, nk]."""
    difference = rows[:, None] - others[None, :]
    return difference.sign(), torch.exp(-difference.abs().sum(-1))


def pairwise_l1(rows, others=None):
    """o, [R, nk]."""
    x, y = _wide(rows, rows if others is None else others)
    distance = (x[:, None] - y[None, :]).abs().sum(-1)  # [R, B, nk]
    return torch.exp(-distance).sum(1).to(rows.dtype)


def _split(dx, dy, rows, others):
    """The gradients of both arguments; that of the others is None where they are the rows."""
    if others is None:
        return (dx + dy).to(rows.dtype), None
    return dx.to(rows.dtype), dy.to(rows.dtype)


def pairwise_l1_backward(g, rows, others=None):
    """drows_id = −g_i Σ_j e_ij s_ijd and dothers_jd = Σ_i g_i e_ij s_ijd, s = sign(rows_id − others_jd)."""
    w, x, y = _wide(g, rows, rows if others is None else others)
    s, e = _pairs(x, y)
    terms = (w[:, None] * e)[..., None] * s
    return _split(-terms.sum(1), terms.sum(0), rows, others)


def pairwise_l1_double_backward(crows, cothers, g, rows, others=None):
    """From cotangents c of the backward's results, with t_ij = Σ_d s_ijd (cothers_jd − crows_id):

    dg_i = Σ_j e_ij t_ij,   drows_id = −g_i Σ_j e_ij t_ij s_ijd,   dothers_jd = Σ_i g_i e_ij t_ij s_ijd.
    """
    if others is None:
        cothers = crows
    cx, cy, w, x, y = _wide(crows, cothers, g, rows, rows if others is None else others)
    s, e = _pairs(x, y)
    et = e * (s * (cy[None, :] - cx[:, None])).sum(-1)
    terms = (w[:, None] * et)[..., None] * s
    return et.sum(1).to(g.dtype), *_split(-terms.sum(1), terms.sum(0), rows, others)
