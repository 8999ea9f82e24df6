"""sigmoid_bce and its derivatives on 3,000 random argument sets: right answers, and errors for what is wrong."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganfast import functional, ops
from ganfast.ops.sigmoid_bce import sigmoid_bce, sigmoid_bce_backward, sigmoid_bce_double_backward

HALVES = {torch.float16: 2**-10, torch.bfloat16: 2**-7}  # an ulp: the results are rounded once, here and in the truth
DTYPES = [torch.float32, *HALVES]
SPECIAL = [float("inf"), float("-inf"), float("nan"), 1e4, -1e4, 0.0, -0.0, 6e-8, 88.0, -103.9]


def _strided(x):
    return torch.stack([x, x], -1)[..., 0]


def _permuted(x):
    order = tuple(reversed(range(x.dim())))
    return x.permute(order).contiguous().permute(order)


LAYOUTS = {
    "plain": lambda x: x,
    "permuted": _permuted,
    "strided": _strided,
    "offset": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "expanded": lambda x: x[:1].expand(x.shape) if x.dim() and len(x) else x,
    "needs grad": lambda x: x.clone().requires_grad_(),
}


@st.composite
def tensors(draw, dtype, shape=None, special=SPECIAL):
    """A tensor of any layout; now and then with a value that is hard."""
    if shape is None:
        shape = draw(st.lists(st.integers(0, 20), max_size=3)) if draw(st.booleans()) else [draw(st.integers(1, 9000))]
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))  # torch's own keeps a traceback of each seed
    x = draw(st.sampled_from([0.1, 3.0, 30.0])) * torch.randn(shape, generator=random)
    if x.numel() and draw(st.integers(0, 3)) == 0:
        x.flatten()[draw(st.integers(0, x.numel() - 1))] = draw(st.sampled_from(special))
    return LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](x.to(dtype))


@st.composite
def arguments(draw, op):
    """Valid arguments of an operator."""
    dtype = draw(st.sampled_from(DTYPES))
    sides = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    logits = [draw(tensors(dtype)) if there else None for there in sides]
    target = st.floats(0, 1, width=32) | st.sampled_from([0, 1, True, 0.9])
    targets = [draw(target), draw(target)]
    g = torch.tensor(draw(st.floats(-4, 4, width=32)))
    # not inf: times a σ that fp32 has as 0 and fp64 has not
    cotangents = [None if x is None else draw(tensors(dtype, list(x.shape), SPECIAL[2:])) for x in logits]
    return {
        sigmoid_bce: [*logits, *targets],
        sigmoid_bce_backward: [g, *logits, *targets],
        sigmoid_bce_double_backward: [*cotangents, g, *logits, *targets],
    }[op]


OPERATORS = [sigmoid_bce, sigmoid_bce_backward, sigmoid_bce_double_backward]


def wide(x):
    return x.detach().double() if isinstance(x, torch.Tensor) else x


def scale_of(args):
    """A bound of the sums' terms, Σ|c|·(|x| + 1), for what cancels; nan and inf count as nothing."""
    finite = [t.detach().double().nan_to_num(0, 0, 0).abs() for t in args if isinstance(t, torch.Tensor)]
    return max([float(t.max()) for t in finite if t.numel()], default=0.0) + 1


def run(op, args):
    results = op(*args)
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
@settings(max_examples=250, deadline=None)
@given(st.data())
def test_random_valid_argument_sets_give_the_right_answer(op, data):
    pytest.importorskip("ganfast._C", reason="the extension is not built here")
    args = data.draw(arguments(op))
    with ops.use_backend(None):
        got = run(op, args)
    with ops.use_backend("reference"):
        wanted = run(op, [wide(a) for a in args])
    for a, b in zip(got, wanted):
        assert a.shape == b.shape
        assert a.is_contiguous()
        ulp = HALVES.get(a.dtype, 4e-6)
        # a sum cancels by an ulp of its terms, σ − t by one of 1 (over n ≥ 1 and times g ≤ 4)
        slack = 4e-6 * scale_of(args) if a.dim() == 0 else 2**-20 + 6e-8 * scale_of(args)
        torch.testing.assert_close(a.detach(), b.detach().to(a.dtype), rtol=ulp, atol=slack, equal_nan=True)


NOT_A_TENSOR = ["1.0", 1.0, [1.0, 2.0], (), object(), torch.float32]
WRONG_TENSOR = [
    lambda x: x.int(),
    lambda x: x.bool(),
    lambda x: x.to(torch.complex64),
    lambda x: x.to(torch.float8_e5m2),
    lambda x: x.detach().to_sparse(),
    lambda x: x.detach().float().reshape(-1).to_mkldnn() if x.numel() else [],
    lambda x: x.detach().float().numpy(),
]
WRONG_NUMBER = [-0.1, 1.0001, float("nan"), float("inf"), -1, 2, "0.5", None, [0.5], torch.tensor(0.5), 1j, object()]


@st.composite
def spoiled(draw, op):
    """Arguments of which one is wrong."""
    args = draw(arguments(op))
    tensor_at = [i for i, a in enumerate(args) if isinstance(a, torch.Tensor)]
    how = draw(st.sampled_from(["target", "not a tensor", "wrong tensor", "other dtype", "other device", "no sides"]))
    if how == "target":
        args[draw(st.sampled_from([-1, -2]))] = draw(st.sampled_from(WRONG_NUMBER))
    elif how == "no sides":
        args[-4:-2] = [None, None]
    elif how == "not a tensor":
        args[draw(st.sampled_from(tensor_at))] = draw(st.sampled_from(NOT_A_TENSOR))
    elif how == "wrong tensor":
        i = draw(st.sampled_from(tensor_at))
        args[i] = draw(st.sampled_from(WRONG_TENSOR))(args[i])
    elif len(tensor_at) == 1:  # nothing to disagree with
        args[tensor_at[0]] = torch.ones(3, dtype=torch.int64)
    else:
        i = draw(st.sampled_from(tensor_at))
        args[i] = args[i].to("meta") if how == "other device" else args[i].double()
    return args


@pytest.mark.slow
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
@settings(max_examples=250, deadline=None)
@given(st.data())
def test_random_invalid_argument_sets_are_refused(op, data):
    args = data.draw(spoiled(op))
    with pytest.raises((ValueError, TypeError)) as caught:
        op(*args)
    assert ": got " in str(caught.value) and "needs" in str(caught.value)


# --- each kind of bad argument, and its words -------------------------------------------------------------------------

GOOD = torch.ones(3)
BAD_LOGITS = [
    (TypeError, [1.0, 2.0], "got list, needs a torch.Tensor"),
    (TypeError, 3.0, "got float, needs a torch.Tensor"),
    (TypeError, torch.ones(3, dtype=torch.int64), "got dtype torch.int64, needs float32"),
    (TypeError, torch.ones(3, dtype=torch.complex64), "got dtype torch.complex64"),
    (TypeError, torch.ones(3, dtype=torch.bool), "got dtype torch.bool"),
    (TypeError, torch.ones(3).to_sparse(), "got layout torch.sparse_coo, needs a dense tensor"),
]
BAD_TARGETS = [
    (ValueError, 1.5, "got 1.5, needs a number between 0 and 1"),
    (ValueError, -0.1, "got -0.1"),
    (ValueError, float("nan"), "got nan"),
    (TypeError, "0.9", "got str, needs a number"),
    (TypeError, torch.tensor(0.9), "got Tensor, needs a number"),
    (TypeError, None, "got NoneType"),
]
ARGUMENTS = ["real_logits", "fake_logits", "real_target", "fake_target"]


@pytest.mark.parametrize("position", range(4))
def test_an_invalid_argument_is_named(position):
    for error, value, words in BAD_LOGITS if position < 2 else BAD_TARGETS:
        args = [GOOD, GOOD, 0.9, 0.1]
        args[position] = value
        with pytest.raises(error) as caught:
            functional.sigmoid_bce(*args)
        assert str(caught.value).startswith(ARGUMENTS[position] + ": ")
        assert words in str(caught.value)
