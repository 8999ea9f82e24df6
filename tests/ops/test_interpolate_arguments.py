"""interpolate: thousands of random arguments, valid and bad."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.mixtures import DTYPES, check_against_reference

from ganfast import functional

SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)


@st.composite
def tensors(draw, shape, dtype):
    """A tensor of this shape in a random order, sliced or not."""
    order = draw(st.permutations(range(len(shape))))
    stored = [shape[i] * (2 if draw(st.integers(0, 5)) == 0 else 1) for i in order]
    x = torch.randn(stored).to(dtype)
    inverse = sorted(range(len(order)), key=lambda i: order[i])
    x = x.permute(inverse)
    return x[tuple(slice(None, None, 2) if a != b else slice(None) for a, b in zip(x.shape, shape))]


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(SHAPES, st.sampled_from(DTYPES), st.sampled_from(["both", "real", "fake"]), st.data())
def test_random_valid_arguments(shape, dtype, sides, data):
    real = data.draw(tensors(shape, dtype)) if sides != "fake" else None
    fake = data.draw(tensors(shape, dtype)) if sides != "real" else None
    check_against_reference(real, fake, data.draw(tensors((shape[0],), torch.float32)).abs().clamp(max=1))


BAD_TENSORS = [
    (TypeError, [[1.0, 2.0]], "got list, needs a torch.Tensor"),
    (TypeError, 3.0, "got float, needs a torch.Tensor"),
    (TypeError, torch.ones(3, 2, dtype=torch.int64), "got dtype torch.int64, needs float32"),
    (TypeError, torch.ones(3, 2, dtype=torch.complex64), "got dtype torch.complex64"),
    (TypeError, torch.ones(3, 2).to_sparse(), "got layout torch.sparse_coo, needs a dense tensor"),
]
BAD_SAMPLES = [
    *BAD_TENSORS,
    (ValueError, torch.tensor(1.0), "got a scalar, needs a batch dimension"),
    (TypeError, None, "got NoneType, needs a torch.Tensor"),
]
BAD_FAKES = [
    *BAD_SAMPLES,
    (TypeError, torch.ones(3, 2).half(), "got dtype torch.float16, needs torch.float32 as real"),
    (ValueError, torch.ones(3, 2, device="meta"), "got device meta, needs cpu as real"),
    (ValueError, torch.ones(3, 3), "got shape (3, 3), needs (3, 2)"),
    (ValueError, torch.ones(1, 2), "got shape (1, 2), needs (3, 2)"),
    (ValueError, torch.ones(3, 2, 1), "got shape (3, 2, 1), needs (3, 2)"),
]
BAD_EPSILONS = [
    *BAD_TENSORS,
    (TypeError, torch.rand(3).half(), "got dtype torch.float16, needs torch.float32 beside real of torch.float32"),
    (TypeError, torch.rand(3).double(), "got dtype torch.float64, needs torch.float32"),
    (ValueError, torch.rand(3, device="meta"), "got device meta, needs cpu as real"),
    (ValueError, torch.rand(3, 1), "got shape (3, 1), needs (3,)"),
    (ValueError, torch.rand(()), "got shape (), needs (3,)"),
    (ValueError, torch.rand(4), "got shape (4,), needs (3,)"),
    (ValueError, torch.rand(3, requires_grad=True), "requires grad, needs to be a constant"),
]
BAD = {"real": BAD_SAMPLES, "fake": BAD_FAKES, "epsilon": BAD_EPSILONS}


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(list(BAD)), st.data())
def test_random_invalid_arguments_name_the_argument(name, data):
    error, value, words = data.draw(st.sampled_from(BAD[name]))
    args = {"real": torch.ones(3, 2), "fake": torch.ones(3, 2), "epsilon": torch.rand(3)}
    args[name] = value
    if name != "epsilon" and data.draw(st.booleans()):
        args["epsilon"] = None
    with pytest.raises(error) as caught:
        functional.interpolate(**args)
    assert str(caught.value).startswith(name + ": "), caught.value
    assert words in str(caught.value)


def test_the_registered_operator_checks_before_a_pointer_leaves():
    with pytest.raises(ValueError, match="real, fake: got None for both"):
        torch.ops.ganfast.interpolate(None, None, torch.rand(3))
    with pytest.raises(ValueError, match=r"epsilon: got shape \(2,\), needs \(3,\)"):
        torch.ops.ganfast.interpolate(None, torch.ones(3, 2), torch.rand(2))
