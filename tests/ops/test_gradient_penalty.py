"""gradient_penalty: truth is the reference in fp64; every layout and dtype, derivatives, bad input, eager, compiled."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from ganfast import functional, ops
from ganfast.ops.gradient_penalty import (
    gradient_penalty,
    gradient_penalty_backward,
    gradient_penalty_double_backward,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
KINDS = ["two_sided", "one_sided", "zero_centered"]
PHIS = [(7.0, 1.0, False), (7.0, 1.0, True), (3.5, 0.0, False), (2.0, 0.3, True)]  # weight, target, one-sided
# A sum over one sample, against the sum of its terms' magnitudes: a lane or thread adds at most 64 terms in fp32 and
# some 30 sums follow in fp32 or double: √100·2^-24 = 6e-7 for random terms. A norm has half of it.
SUM = 2e-6
# The rounding of a result: a few fp32 products, or half an ulp of a half type.
ROUND = {torch.float32: 5e-7, torch.float16: 2**-11 + 5e-7, torch.bfloat16: 2**-8}
TINY = {torch.float32: 2**-126, torch.float16: 2**-24, torch.bfloat16: 2**-126}  # per element: what may be flushed to 0


def backends(device):
    """The backends that can run here."""
    rows = [row for row in ops.table() if row[0] == "gradient_penalty" and row[1] == device]
    return [name for _, _, name, answer in rows if answer is True]


def gradients(*shape, dtype=torch.float32, device="cpu"):
    """Samples with norms from 0.1 to 3, on both sides of the targets."""
    g = torch.randn(shape, device=device)
    norms = g.flatten(1).norm(dim=1) if g.dim() > 1 else g.abs()
    wanted = 0.1 + 2.9 * torch.rand(shape[0], device=device)
    return (g * (wanted / norms.clamp(min=1e-6)).reshape(-1, *[1] * (g.dim() - 1))).to(dtype)


def rows(x):
    """[B, elements] in fp64, elements in the order of the dimensions."""
    return x.detach().double().flatten(1) if x.dim() > 1 else x.detach().double()[:, None]


def check_samples(got, wanted, slack, dtype):
    """Sample by sample ‖got − wanted‖ ≤ slack + rounding of the result."""
    assert got.shape == wanted.shape and got.dtype == dtype
    error, size = (rows(got) - rows(wanted)).norm(dim=1), rows(wanted).norm(dim=1)
    limit = slack + ROUND[dtype] * size + TINY[dtype] * rows(got).shape[1] ** 0.5
    assert bool((error <= limit).all()), f"{error} > {limit}"  # NaN fails


def check_against_reference(g, weight, target, one_sided):
    """Penalty, norms, seed and both derivatives of the current backend against fp64."""
    phi, batch, dtype = (weight, target, one_sided), g.shape[0], g.dtype
    c, c_norms = torch.randn_like(g), torch.randn(batch, device=g.device)
    c_penalty = torch.tensor(1.5, device=g.device)
    penalty, norms, seed = gradient_penalty(g, *phi, True)
    first = gradient_penalty_backward(c_penalty, c_norms, g, norms, *phi)
    dc_penalty, dc_norms, second = gradient_penalty_double_backward(c, c_penalty, c_norms, g, norms, *phi)
    with ops.use_backend("reference"):
        p, n, v = gradient_penalty(g.double(), *phi, True)
        cotangents = c_penalty.double(), c_norms.double(), g.double(), n
        wanted_first = gradient_penalty_backward(*cotangents, *phi)
        dp, dn, wanted_second = gradient_penalty_double_backward(c.double(), *cotangents, *phi)
    scale, off = 2 * weight / max(batch, 1), SUM * n
    assert penalty.dtype == norms.dtype == torch.float32 and penalty.shape == () and norms.shape == (batch,)
    assert bool(((norms - n).abs() <= off).all())
    # φ = w·(n − t)² moves by 2w·|n − t|·δn + w·δn², its slope by 2w·δn
    moved = float((scale * (n - target).abs() * off + scale / 2 * off.square()).sum())
    assert abs(float(penalty) - float(p)) <= moved + 1e-6 * float(p) + 2**-126
    check_samples(seed, v, scale * off, dtype)
    check_samples(first, wanted_first, 1.5 * scale * off + 1e-6 * c_norms.abs(), dtype)
    length, inverse = rows(c).norm(dim=1), torch.where(n > 0, 1 / n, 0)
    assert bool(((dc_norms - dn).abs() <= SUM * length).all())  # Σ|ĝ·c| ≤ ‖c‖
    assert abs(float(dc_penalty) - float(dp)) <= float((scale * (target + 2 * n) * 2 * SUM * length).sum()) + 2**-126
    bends = (1.5 * scale * (1 + target * inverse) + c_norms.abs() * inverse) * length
    check_samples(second, wanted_second, 4 * SUM * bends, dtype)
    return seed, first, second


def layouts(x):
    """Tensors of every kind of strides, the first ones lined up."""
    yield x
    yield x.to(memory_format=torch.channels_last)
    yield x.permute(0, 2, 3, 1)  # a dense order that has no name
    yield x[:, :, ::2]
    yield x.transpose(0, 1)
    yield x[:1, :1, :1, :1].expand(3, 2, 4, 5)  # stride 0
    yield x.flatten()[3:].unflatten(0, (-1, 1))  # not aligned to 16 bytes


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1), (7,), (5, 2), (1, 3, 5, 7), (64, 3, 8, 8), (5, 4097), (3, 100_001), (2, 1 << 15), (1, 1 << 18)]
)
def test_every_backend_equals_the_reference(shape, dtype, device):
    g = gradients(*shape, dtype=dtype, device=device)
    for name in backends(device):
        for phi in PHIS:
            with ops.use_backend(name):
                check_against_reference(g, *phi)


@pytest.mark.gpu
def test_more_blocks_than_a_sample_may_have():
    g = gradients(2, 256 * 16384 + 5, device="cuda")  # every block takes more than one tile
    for name in backends("cuda"):
        with ops.use_backend(name):
            check_against_reference(g, *PHIS[0])


@pytest.mark.parametrize("device", DEVICES)
def test_any_layout(device):
    for name in backends(device):
        with ops.use_backend(name):
            for number, g in enumerate(layouts(gradients(6, 10, 4, 6, device=device))):
                for result in check_against_reference(g, 10.0, 1.0, False):
                    assert result.stride() == (g.stride() if number < 3 else g.contiguous().stride())


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_the_formulas_of_the_papers(kind):
    g = gradients(9, 4, 3)
    n = g.double().flatten(1).norm(dim=1)
    wanted = {
        "two_sided": 10 * (n - 1).square(),
        "one_sided": 10 * (n - 1).clamp(min=0).square(),
        "zero_centered": 10 / 2 * n.square(),
    }
    penalty, norms, seed = functional.gradient_penalty_terms(g, 10.0, kind)
    torch.testing.assert_close(penalty.double(), wanted[kind].mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norms.double(), n, rtol=1e-6, atol=0)
    torch.testing.assert_close(functional.gradient_penalty(g, 10.0, kind), penalty)
    leaf = g.double().requires_grad_()
    (slope,) = torch.autograd.grad(functional.gradient_penalty(leaf, 10.0, kind), leaf)
    torch.testing.assert_close(seed, slope.float(), rtol=1e-4, atol=1e-6)
    if kind != "zero_centered":
        assert float(functional.gradient_penalty(3 * g / n[:, None, None].float(), 10.0, kind, target=3.0)) < 1e-10


def test_norms_over_the_batch_or_per_pixel_are_something_else():
    g = gradients(8, 3, 4, 4)
    ours = functional.gradient_penalty(g)
    truth = 10 * sum((float(sample.double().norm()) - 1) ** 2 for sample in g) / 8
    assert abs(float(ours) - truth) < 1e-5 * truth
    over_the_batch = 10 * (g.norm() - 1).square()
    per_pixel = 10 * (g.norm(dim=1) - 1).square().mean()  # over the channels only
    flat_rows = 10 * (g.flatten(0, 1).flatten(1).norm(dim=1) - 1).square().mean()  # per channel
    for wrong in (over_the_batch, per_pixel, flat_rows):
        assert abs(float(wrong) - truth) > 0.05 * truth


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_gradient_is_safe_to_second_order(kind, dtype, device):
    for name in ["reference"] if dtype == torch.float64 else backends(device):
        g = torch.zeros(4, 3, 5, device=device, dtype=dtype)
        g[1] = 0.5
        g.requires_grad_()
        with ops.use_backend(name):
            penalty, norms, seed = functional.gradient_penalty_terms(g, 10.0, kind)
            (first,) = torch.autograd.grad(penalty, g, create_graph=True)
            (second,) = torch.autograd.grad(first.float().sum(), g)
        assert norms.tolist()[::2] == [0.0, 0.0]
        for x in (seed, first, second):
            assert bool(x.isfinite().all())
        for x in (seed, first):
            assert not x[[0, 2, 3]].count_nonzero()
        curvature = 10 / 4 if kind == "zero_centered" else 0.0
        assert bool((second[[0, 2, 3]] == curvature).all())


@pytest.mark.parametrize("device", DEVICES)
def test_large_and_small_gradients(device):
    """fp16 sums above 65504; fp32 and bf16 gradients whose squares leave fp32's range on either side."""
    half = torch.full((2, 1000), 100.0, dtype=torch.float16, device=device)
    for name in backends(device):
        with ops.use_backend(name):
            norms = functional.gradient_penalty_terms(half)[1]
            torch.testing.assert_close(norms, torch.full((2,), 1e7**0.5, device=device))
    for name in set(backends(device)) - {"reference"}:
        for size in (1e-30, 1e-22, 1e30):
            for shape in ((3, 700), (2, 40_000)):
                for dtype in (torch.float32, torch.bfloat16):
                    g = (size * torch.randn(shape, device=device)).to(dtype)
                    truth = g.double().norm(dim=1, keepdim=True)
                    with ops.use_backend(name):
                        _, norms, seed = functional.gradient_penalty_terms(g, 10.0)
                    torch.testing.assert_close(norms.double(), truth[:, 0], rtol=SUM, atol=0)
                    wanted = 20 / shape[0] * (truth - 1) * g.double() / truth
                    check_samples(seed, wanted, SUM * wanted.norm(dim=1), dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_nan_and_infinity_are_not_hidden(device):
    for name in backends(device):
        for phi in PHIS:
            g = gradients(3, 40, device=device)
            g[1, 17] = float("nan")
            with ops.use_backend(name):
                penalty, norms, seed = gradient_penalty(g, *phi, True)
            assert penalty.isnan()
            assert norms.isnan().tolist() == [False, True, False]
            assert seed.isnan().any(1).tolist() == [False, True, False]
            g[1, 17] = float("inf")
            with ops.use_backend(name):
                penalty, norms, _ = gradient_penalty(g, *phi, True)
            assert norms[1] == float("inf") and penalty == float("inf")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (0, 2, 4, 4)])
def test_an_empty_batch_is_nan_as_torchs_mean(shape, device):
    for name in backends(device):
        g = torch.randn(shape, device=device, requires_grad=True)
        with ops.use_backend(name):
            penalty, norms, seed = functional.gradient_penalty_terms(g)
            (first,) = torch.autograd.grad(penalty, g, create_graph=True)
            (second,) = torch.autograd.grad(first.sum(), g)
        assert penalty.isnan()
        assert norms.shape == (0,)
        assert seed.shape == first.shape == second.shape == shape


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(3, 0), (2, 0, 4, 4), (1, 4, 0)])
def test_samples_without_elements_have_norm_zero(shape, device):
    for name in backends(device):
        g = torch.randn(shape, device=device, requires_grad=True)
        with ops.use_backend(name):
            penalty, norms, _ = functional.gradient_penalty_terms(g, 10.0)
            (first,) = torch.autograd.grad(penalty, g, create_graph=True)
            (second,) = torch.autograd.grad(first.sum(), g)
        assert float(penalty.detach()) == 10.0
        assert norms.tolist() == [0.0] * shape[0]
        assert first.shape == second.shape == shape


@pytest.mark.slow
def test_addresses_on_the_cpu_have_64_bits():
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 8 << 30:
        pytest.skip("needs 8 GiB of free memory")
    g = torch.zeros(3, 3 << 28, dtype=torch.float16)  # 2.4e9 elements
    g[2, -1] = 3.0
    for name in set(backends("cpu")) - {"reference"}:
        with ops.use_backend(name):
            assert gradient_penalty(g, 3.0, 1.0, False, False)[1].tolist() == [0.0, 0.0, 3.0]


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("through", ["eager", "dispatcher"])
@pytest.mark.parametrize("phi", PHIS)
def test_derivatives_to_second_order(phi, through, device):
    g = gradients(4, 2, 3, device=device).double().requires_grad_()
    call = gradient_penalty if through == "eager" else torch.ops.ganfast.gradient_penalty
    assert gradcheck(lambda x: call(x, *phi, True), (g,))  # the seed too
    assert gradgradcheck(lambda x: call(x, *phi, False)[:2], (g,))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_critic_gets_the_gradients_of_the_plain_composition(kind, device):
    torch.manual_seed(0)
    critic = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(4 * 25, 1)
    )
    critic.to(device, torch.float64)
    x = torch.randn(5, 2, 5, 5, dtype=torch.float64, device=device, requires_grad=True)

    def plain(g):
        n = g.flatten(1).norm(dim=1)
        return {
            "two_sided": (n - 0.1).square(),
            "one_sided": (n - 0.1).clamp(min=0).square(),
            "zero_centered": n**2 / 2,
        }[kind].mean()

    def gradients_of(penalty):
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return torch.autograd.grad(penalty(g), [*critic.parameters(), x], allow_unused=True)

    target = None if kind == "zero_centered" else 0.1
    got = gradients_of(lambda g: functional.gradient_penalty(g, 1.0, kind, target))
    for a, b in zip(got, gradients_of(plain)):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_a_third_derivative_says_that_there_is_none():
    g = gradients(4, 3).double().requires_grad_()
    penalty, _, seed = functional.gradient_penalty_terms(g)
    (first,) = torch.autograd.grad(penalty, g, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), g, create_graph=True)
    (of_seed,) = torch.autograd.grad(seed.square().sum(), g, create_graph=True)
    for x in (second, of_seed):
        with pytest.raises(
            NotImplementedError, match=r"gradient_penalty_double_backward has no derivative: .* a third"
        ):
            x.sum().backward()


def test_fp16_gradients_survive_a_loss_scale():
    g = torch.zeros(4096, 2, dtype=torch.float16)
    g[:, 0] = 1.0001e-4  # φ'·g/(B·n) of w·n² is 5e-8, below fp16's smallest number
    g.requires_grad_()
    (functional.gradient_penalty(g, 1.0, "zero_centered") * 65536).backward()
    torch.testing.assert_close(g.grad[:, 0].float(), g.detach()[:, 0].float() * 16, rtol=2**-10, atol=0)


# --- the frame --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(3, 100_003), (50, 3000)])
def test_the_same_bits_on_every_run_and_any_number_of_threads(shape, device):
    g, phi = gradients(*shape, device=device), (10.0, 1.0, False)
    c, c_norms = torch.randn_like(g), torch.randn(shape[0], device=device)
    before = torch.get_num_threads()
    try:
        for name in set(backends(device)) - {"reference"}:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                with ops.use_backend(name):
                    terms = gradient_penalty(g, *phi, True)
                    first = gradient_penalty_backward(terms[0], c_norms, g, terms[1], *phi)
                    second = gradient_penalty_double_backward(c, terms[0], c_norms, g, terms[1], *phi)
                results.append((*terms, first, *second))
            for result in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], result))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["compact", "channels_last", "permuted", "sliced", "empty"])
def test_opcheck(layout, dtype, device):
    g = torch.randn(4, 6, 3, 2, device=device, dtype=dtype)
    g = {
        "compact": g,
        "channels_last": g.to(memory_format=torch.channels_last),
        "permuted": g.transpose(0, 1),
        "sliced": g[:, ::2],
        "empty": g[:0],
    }[layout]
    # an empty batch's penalty is nan, and the tests that compare with aot do not take nan for equal to itself
    tests = ["test_schema", "test_faketensor"]
    if layout != "empty":
        tests += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
    phi = (10.0, 1.0, True)
    _, norms, _ = gradient_penalty(g, *phi, False)
    c = torch.randn_like(g)
    leaf, c_penalty, c_norms = (x.detach().requires_grad_() for x in (g, norms.new_ones(()), torch.ones_like(norms)))
    for op, args in (
        (gradient_penalty, (leaf, *phi, True)),
        (gradient_penalty, (leaf, *phi, False)),
        (gradient_penalty_backward, (c_penalty, c_norms, leaf, norms, *phi)),
        (gradient_penalty_backward, (c_penalty, None, leaf, norms, *phi)),
        (gradient_penalty_backward, (None, c_norms, leaf, norms, *phi)),
        (gradient_penalty_double_backward, (c, c_penalty.detach(), c_norms.detach(), g, norms, *phi)),
        (gradient_penalty_double_backward, (c, None, c_norms.detach(), g, norms, *phi)),
    ):
        torch.library.opcheck(op.overload, args, test_utils=tests)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_equals_eager(dtype, device):
    def step(g):
        penalty, norms, seed = functional.gradient_penalty_terms(2 * g, 10.0, "one_sided")
        return penalty + functional.gradient_penalty(g) + norms.mean() + (seed.detach().float() * g).sum()

    compiled = torch.compile(step, fullgraph=True)
    for shape in ((5, 3, 4, 4), (5, 3, 4, 4), (2, 3, 7, 5)):
        g = gradients(*shape, dtype=dtype, device=device).to(memory_format=torch.channels_last)
        results = []
        for function in (step, compiled):
            leaf = g.clone().requires_grad_()
            value = function(leaf)
            value.backward()
            results.append((value.detach().double(), leaf.grad.double()))
        for a, b in zip(*results):  # four gradients meet in g: fused, they are added before they are rounded
            assert float((a - b).norm()) <= 2 * ROUND[dtype] * float(b.norm()), (dtype, shape)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_leaves_the_gradients_as_they_are(device):
    g = gradients(5, 30, device=device)
    wanted = functional.gradient_penalty(g)
    for name in backends(device):
        with ops.use_backend(name), torch.autocast(device, dtype=torch.bfloat16):
            penalty, _, seed = functional.gradient_penalty_terms(g)
        assert penalty.dtype == seed.dtype == torch.float32
        torch.testing.assert_close(penalty, wanted, rtol=1e-5, atol=1e-6)


def test_transforms_of_torch_func():
    g = gradients(4, 3)
    leaf = g.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(functional.gradient_penalty(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(functional.gradient_penalty)(g), wanted)


# --- random arguments -------------------------------------------------------------------------------------------------


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
@settings(max_examples=2000, deadline=None)
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


@settings(max_examples=2000, deadline=None)
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


@settings(max_examples=2000, deadline=None)
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


# --- with a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(16, 3, 16, 16), (3, 3, 128, 128)])  # one block a sample; several
def test_graph_replay_equals_eager(shape):
    for name in set(backends("cuda")) - {"reference"}:
        with ops.use_backend(name):
            g = gradients(*shape, device="cuda").requires_grad_()

            def step(g=g):
                penalty, norms, seed = functional.gradient_penalty_terms(g)
                (first,) = torch.autograd.grad(penalty + norms.sum(), g, create_graph=True)
                (second,) = torch.autograd.grad(first, g, seed.detach())
                return penalty, norms, seed, first, second

            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                results = step()
            with torch.no_grad():
                g.copy_(gradients(*shape, device="cuda"))
            graph.replay()
            assert all(torch.equal(a, b) for a, b in zip(results, step()))


@pytest.mark.gpu
def test_addresses_have_64_bits():
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GiB of free GPU memory")
    g = torch.zeros(3, 1 << 30, dtype=torch.float16, device="cuda")
    g[2, -1] = 3.0
    for name in set(backends("cuda")) - {"reference"}:
        with ops.use_backend(name):
            _, norms, seed = functional.gradient_penalty_terms(g, 3.0)
            first = gradient_penalty_backward(torch.ones((), device="cuda"), None, g, norms, 3.0, 1.0, False)
        assert norms.tolist() == [0.0, 0.0, 3.0]
        for x in (seed, first):
            assert float(x[2, -1]) == 4.0  # 2·3·(3 − 1)/3
            assert int(x.count_nonzero()) == 1
