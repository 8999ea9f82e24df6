"""gradient_penalty: truth is the reference in fp64; every layout and dtype, derivatives, eager, compiled."""

import mmap
import os

import pytest
import torch
from graphed import captured
from ops.compilers import BY_DTYPE
from ops.penalties import DTYPES, ROUND, SUM, backends, check_against_reference, check_samples, gradients
from torch.autograd import gradcheck, gradgradcheck

from ganfast import functional, ops
from ganfast.ops.gradient_penalty import (
    gradient_penalty,
    gradient_penalty_backward,
    gradient_penalty_double_backward,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
KINDS = ["two_sided", "one_sided", "zero_centered"]
PHIS = [(7.0, 1.0, False), (7.0, 1.0, True), (3.5, 0.0, False), (2.0, 0.3, True)]  # weight, target, one-sided


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


@pytest.mark.parametrize("device", DEVICES)
def test_more_blocks_than_a_sample_may_have(device):
    g = gradients(2, 256 * 16384 + 5, device=device)  # every block takes more than one tile
    for name in backends(device):
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
    g = 2 * g / g.flatten(1).norm(dim=1)[:, None, None, None]  # or the others may come near by chance
    ours = functional.gradient_penalty(g)
    truth = 10 * sum((float(sample.double().norm()) - 1) ** 2 for sample in g) / 8
    assert abs(float(ours) - truth) < 1e-5 * truth
    over_the_batch = 10 * (g.norm() - 1).square()
    per_pixel = 10 * (g.norm(dim=1) - 1).square().mean()  # over the channels only
    flat_rows = 10 * (g.flatten(0, 1).flatten(1).norm(dim=1) - 1).square().mean()  # per channel
    for wrong in (over_the_batch, per_pixel, flat_rows):
        assert abs(float(wrong) - truth) > 0.5 * truth


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
    memory = mmap.mmap(-1, 9 << 29, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # zeros, in pages of 2 MiB if there are some
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    g = torch.frombuffer(memory, dtype=torch.float16).view(3, 3 << 28)  # 2.4e9 elements
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


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("device", DEVICES)
@BY_DTYPE
def test_compiled_equals_eager(dtype, compiler, device):
    def step(g):
        penalty, norms, seed = functional.gradient_penalty_terms(2 * g, 10.0, "one_sided")
        return penalty + functional.gradient_penalty(g) + norms.mean() + (seed.detach().float() * g).sum()

    compiled = torch.compile(step, fullgraph=True, backend=compiler)
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


# --- in a CUDA graph, and with a GPU ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 3, 16, 16), (3, 3, 128, 128)])  # one block a sample; several
def test_graph_replay_equals_eager(shape, graph_device):
    for name in backends(graph_device):
        with ops.use_backend(name):
            g = gradients(*shape, device=graph_device).requires_grad_()

            def step(g=g):
                penalty, norms, seed = functional.gradient_penalty_terms(g)
                (first,) = torch.autograd.grad(penalty + norms.sum(), g, create_graph=True)
                (second,) = torch.autograd.grad(first, g, seed.detach())
                return penalty, norms, seed, first, second

            eager, replay = captured(step)
            with torch.no_grad():
                g.copy_(gradients(*shape, device=graph_device))
            assert all(torch.equal(a, b) for a, b in zip(replay(), eager()))


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
