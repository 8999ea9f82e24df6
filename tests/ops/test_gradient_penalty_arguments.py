"""gradient_penalty: thousands of random arguments, valid and bad."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.penalties import DTYPES, check_against_reference, gradients

from ganfast import functional
from ganfast.ops.gradient_penalty import gradient_penalty

KINDS = ["two_sided", "one_sided", "zero_centered"]


@st.composite
def random_gradients(draw):
    """Gradients of any shape and dtype, their dimensions in a random order, sliced or not."""
    shape = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple))
    if draw(st.integers(0, 9)) == 0:
        shape = (*shape[:1], draw(st.integers(1, 9000)))
    g = gradients(*shape, dtype=draw(st.sampled_from(DTYPES)))
    order = draw(st.permutations(range(len(shape))))
    twice = [2 if draw(st.integers(0, 5)) == 0 else 1 for _ in shape]
    stored = torch.empty([shape[i] * twice[i] for i in order], dtype=g.dtype)
    view = stored.permute(sorted(range(len(order)), key=lambda i: order[i]))
    view = view[tuple(slice(None, None, step) for step in twice)]
    return view.copy_(g)


NUMBERS = st.floats(0, 100, width=32)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(random_gradients(), NUMBERS, st.one_of(st.just(0.0), st.floats(2**-6, 4, width=32)), st.booleans())
def test_random_valid_arguments(g, weight, target, one_sided):
    if g.shape[0] == 0:
        assert gradient_penalty(g, weight, target, one_sided, True)[0].isnan()
    else:
        check_against_reference(g, weight, target, one_sided)


GOOD = torch.ones(3, 2)
BAD_G = [
    (TypeError, [[1.0, 2.0]], "got list, needs a torch.Tensor"),
    (TypeError, None, "got NoneType, needs a torch.Tensor"),
    (TypeError, GOOD.long(), "got dtype torch.int64, needs float32"),
    (TypeError, GOOD.bool(), "got dtype torch.bool, needs float32"),
    (TypeError, GOOD.to(torch.complex64), "got dtype torch.complex64"),
    (TypeError, GOOD.to_sparse(), "got layout torch.sparse_coo, needs a dense tensor"),
    (ValueError, torch.tensor(1.0), "got a scalar, needs a batch dimension"),
]
BAD_NUMBERS = [
    (ValueError, -0.5, "got -0.5, needs a finite number, 0 or more"),
    (ValueError, float("nan"), "got nan"),
    (ValueError, float("inf"), "got inf"),
    (TypeError, "10", "got str, needs a number"),
    (TypeError, torch.tensor(1.0), "got Tensor, needs a number"),
    (TypeError, [1.0], "got list, needs a number"),
]
BAD_KINDS = [
    (ValueError, "r1", "got 'r1', needs two_sided, one_sided or zero_centered"),
    (ValueError, None, "got None, needs"),
    (ValueError, 2, "got 2, needs"),
]
BAD = {
    "g": BAD_G,
    "weight": [*BAD_NUMBERS, (TypeError, None, "got NoneType")],
    "target": BAD_NUMBERS,
    "kind": BAD_KINDS,
}


@settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from(list(BAD)),
    st.sampled_from([functional.gradient_penalty, functional.gradient_penalty_terms]),
    st.sampled_from(KINDS),
    st.data(),
)
def test_random_invalid_arguments_name_the_argument(name, function, kind, data):
    error, value, words = data.draw(st.sampled_from(BAD[name]))
    args = {"g": GOOD, "kind": kind}
    args[name] = value
    if name == "target" and kind == "zero_centered":
        error, words = ValueError, "needs none with kind zero_centered"
    with pytest.raises(error) as caught:
        function(**args)
    assert str(caught.value).startswith(name + ": "), caught.value
    assert words in str(caught.value)


NORMS, ONE = torch.ones(3), torch.tensor(1.0)
BAD_SUMS = [
    (TypeError, NORMS.half(), "got dtype torch.float16, needs torch.float32 beside g of torch.float32"),
    (TypeError, NORMS.double(), "got dtype torch.float64, needs torch.float32"),
    (TypeError, NORMS.to_sparse(), "got layout torch.sparse_coo"),
    (ValueError, NORMS.to("meta"), "got device meta, needs cpu as g"),
    (ValueError, torch.ones(3, 1), "got shape (3, 1), needs"),
    (ValueError, torch.ones(2), "got shape (2,), needs"),
]
BAD_C = [
    (TypeError, GOOD.half(), "got dtype torch.float16, needs torch.float32 as g"),
    (ValueError, GOOD.to("meta"), "got device meta, needs cpu as g"),
    (ValueError, torch.ones(3, 3), "got shape (3, 3), needs (3, 2)"),
    (ValueError, torch.ones(6), "got shape (6,), needs (3, 2)"),
]
BAD_DERIVATIVE = {"c_penalty": BAD_SUMS, "c_norms": BAD_SUMS, "norms": BAD_SUMS, "c": BAD_C}


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(list(BAD_DERIVATIVE)), st.booleans(), st.data())
def test_the_registered_derivatives_check_before_a_pointer_leaves(name, double, data):
    error, value, words = data.draw(st.sampled_from(BAD_DERIVATIVE[name]))
    args = {"c": GOOD, "c_penalty": ONE, "c_norms": NORMS, "g": GOOD, "norms": NORMS}
    args[name] = value
    function = torch.ops.ganfast.gradient_penalty_double_backward
    if not double and name != "c":
        del args["c"]
        function = torch.ops.ganfast.gradient_penalty_backward
    with pytest.raises(error) as caught:
        function(**args, weight=10.0, target=1.0, one_sided=False)
    assert str(caught.value).startswith(name + ": "), caught.value
    assert words in str(caught.value)


def test_a_derivative_needs_a_cotangent():
    with pytest.raises(ValueError, match="c_penalty, c_norms: got None for both, needs at least one"):
        torch.ops.ganfast.gradient_penalty_backward(None, None, GOOD, NORMS, 10.0, 1.0, False)
