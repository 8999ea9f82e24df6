"""Registered operators with their shapes, derivatives and backends; call them through ``ganfast.functional``."""

from ganfast.ops import (  # noqa: F401  each is registered
    batch_norm_act,
    conv_bn_act,
    gradient_penalty,
    interpolate,
    norm_act,
    pairwise_l1,
    sigmoid_bce,
)
from ganfast.ops._backends import Backend
from ganfast.ops._extension import build_note, has_cuda
from ganfast.ops._registry import Op, table, unforced, use_backend
from ganfast.ops._tuning import for_graph

__all__ = ["Backend", "Op", "build_note", "for_graph", "has_cuda", "table", "unforced", "use_backend"]
