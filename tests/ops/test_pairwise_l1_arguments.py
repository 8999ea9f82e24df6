"""pairwise_l1 of random arguments: the right answer, or a ValueError or TypeError that names the argument."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops.pairs import backends, check, make

from ganfast import functional, ops
from ganfast.ops.pairwise_l1 import pairwise_l1_backward, pairwise_l1_double_backward

QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}
SIZES = st.integers(0, 40)


@st.composite
def valid(draw):
    """Arguments of every dtype, layout and size."""
    others = draw(st.none() | SIZES)
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    arguments = make(draw(SIZES), others, draw(st.integers(0, 5)), draw(st.integers(0, 9)), dtype)
    scale = draw(st.sampled_from([0.1, 1.0, 1.0, 5.0]))
    arguments = [None if t is None else t * scale for t in arguments]
    layout = draw(st.sampled_from(["compact", "strided", "permuted", "shifted"]))
    return [None if t is None else relaid(t, layout) for t in arguments]


def relaid(t, layout):
    """The same numbers in another layout."""
    if layout == "strided":
        return torch.stack([t, t], dim=-1)[..., 0]
    if layout == "permuted":
        return t.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "shifted":  # no longer on 16 bytes
        return torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)
    return t


@pytest.mark.slow
@settings(max_examples=700, **QUIET)
@given(valid())
def test_random_valid_arguments(arguments):
    check(arguments)


@settings(max_examples=50, **QUIET)
@given(valid())
def test_random_valid_arguments_of_the_reference(arguments):
    with ops.use_backend("reference"):
        check(arguments)


GOOD = torch.ones(4, 3, 2)


def bad_m(name):
    """(error, the value, words) for a tensor of rank 3."""
    return [
        (TypeError, [[[1.0]]], f"{name}: got list, needs a torch.Tensor"),
        (TypeError, 3.0, f"{name}: got float, needs a torch.Tensor"),
        (TypeError, GOOD.long(), f"{name}: got dtype torch.int64, needs float32"),
        (TypeError, GOOD.to(torch.complex64), f"{name}: got dtype torch.complex64"),
        (TypeError, GOOD.bool(), f"{name}: got dtype torch.bool"),
        (TypeError, GOOD.to_sparse(), f"{name}: got layout torch.sparse_coo, needs a dense tensor"),
        (ValueError, torch.ones(4, 6), rf"{name}: got shape (4, 6), needs ["),
        (ValueError, torch.ones(()), f"{name}: got shape (), needs ["),
        (ValueError, torch.ones(4, 3, 2, 1), f"{name}: got shape (4, 3, 2, 1), needs ["),
    ]


BAD_OTHERS = [
    *bad_m("others"),
    (TypeError, GOOD.half(), "others: got dtype torch.float16, needs torch.float32 as m"),
    (TypeError, GOOD.double(), "others: got dtype torch.float64, needs torch.float32 as m"),
    (ValueError, GOOD.to("meta"), "others: got device meta, needs cpu as m"),
    (ValueError, torch.ones(4, 2, 2), "others: got shape (4, 2, 2), needs [any, 3, 2] as m"),
    (ValueError, torch.ones(4, 3, 5), "others: got shape (4, 3, 5), needs [any, 3, 2] as m"),
]


@pytest.mark.slow
@settings(max_examples=200, **QUIET)
@given(st.data(), st.sampled_from([functional.pairwise_l1, torch.ops.ganfast.pairwise_l1]), st.booleans())
def test_random_invalid_arguments_name_the_argument(data, call, first):
    error, value, words = data.draw(st.sampled_from(bad_m("m") if first else BAD_OTHERS))
    if call is not functional.pairwise_l1 and not isinstance(value, torch.Tensor):
        return  # torch's own words for what its schema refuses
    with pytest.raises(error) as caught:
        call(value, GOOD) if first else call(GOOD, value)
    assert str(caught.value).startswith(words)


@pytest.mark.slow
@settings(max_examples=300, **QUIET)
@given(st.data())
def test_random_shapes_are_right_or_refused(data):
    """Any shapes of all five tensors: the answer is the reference's where they fit, ValueError where they do not."""
    sides = st.sampled_from([0, 1, 2, 3, 17])
    rank3 = st.tuples(sides, st.integers(1, 2), st.integers(1, 2))
    rows, others = torch.randn(data.draw(rank3)), torch.randn(data.draw(rank3))
    crows, cothers = (torch.randn(data.draw(st.just(t.shape) | rank3)) for t in (rows, others))
    g = torch.randn(data.draw(st.just(rows.shape[:2]) | st.tuples(sides, sides)))
    fits = (
        rows.shape[1:] == others.shape[1:]
        and g.shape == rows.shape[:2]
        and crows.shape == rows.shape
        and cothers.shape == others.shape
    )
    arguments = crows, cothers, g, rows, others
    if fits:
        check(arguments)
    else:
        with pytest.raises(ValueError, match=r"^(others|g|crows|cothers): got shape"):
            torch.ops.ganfast.pairwise_l1_double_backward(*arguments)


def test_the_registered_derivatives_check_before_a_pointer_leaves():
    g = torch.ones(4, 3)
    with pytest.raises(ValueError, match=r"g: got shape \(3, 4\), needs \(4, 3\)"):
        torch.ops.ganfast.pairwise_l1_backward(g.t(), GOOD, None)
    with pytest.raises(TypeError, match=r"g: got dtype torch.float64, needs torch.float32 as m"):
        pairwise_l1_backward(g.double(), GOOD, None)
    with pytest.raises(ValueError, match="cothers: got None, needs what others is"):
        pairwise_l1_double_backward(GOOD, None, g, GOOD, GOOD)
    with pytest.raises(ValueError, match="cothers: got a tensor, needs what others is"):
        torch.ops.ganfast.pairwise_l1_double_backward(GOOD, GOOD, g, GOOD, None)
    with pytest.raises(ValueError, match=r"crows: got shape \(4, 3, 1\), needs \(4, 3, 2\)"):
        torch.ops.ganfast.pairwise_l1_double_backward(GOOD[..., :1], None, g, GOOD, None)


def test_the_compiled_half_is_what_is_tested_here():
    pytest.importorskip("ganfast._C", reason="the extension is not built here")
    assert backends("cpu")[0] == "cpu"
