"""pairwise_l1: truth is the reference in fp64; fast paths, both derivatives, layouts, bits, memory, graphs."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from graphed import captured
from kinks import away_from_kinks
from ops.compilers import BY_DTYPE
from ops.pairs import DTYPES, backends, check, everything, make
from torch.autograd import gradcheck, gradgradcheck

from ganfast import functional, ops
from ganfast.ops.pairwise_l1 import pairwise_l1, pairwise_l1_backward, pairwise_l1_double_backward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("through", ["eager", "dispatcher"])
def test_derivatives_to_second_order(through, device):
    call = pairwise_l1 if through == "eager" else torch.ops.ganfast.pairwise_l1

    def draw():
        return torch.randn(9, 2, 3, dtype=torch.float64, device=device)

    drawn = away_from_kinks(draw, lambda rows: [rows[None] - rows[:, None]])
    m, others = (rows.clone().requires_grad_() for rows in drawn.split([5, 4]))
    for function, arguments in ((lambda m: call(m, None), (m,)), (call, (m, others)), (lambda m: call(m, m), (m,))):
        assert gradcheck(function, arguments)
        assert gradgradcheck(function, arguments)
    fixed = others.detach()
    assert gradcheck(lambda m: call(m, fixed), (m,))
    assert gradgradcheck(lambda m: call(fixed, m), (m,))


@pytest.mark.parametrize("device", DEVICES)
def test_derivatives_of_a_penalty_on_fast_paths(device):
    """The gradient of a gradient, through g and both tensors, against fp64."""
    w, x, y = (torch.randn(s, device=device) / 2 for s in ((4, 6), (9, 4), (7, 4)))

    def penalty(w, x, y):
        m, others = (x @ w).view(-1, 2, 3), (y @ w).view(-1, 2, 3)
        value = functional.pairwise_l1(m, others).square().sum() + functional.pairwise_l1(m).sin().sum()
        grads = torch.autograd.grad(value, (m, others), create_graph=True)
        return sum(g.square().sum() for g in grads) + value

    truth = w.double().requires_grad_()
    (wanted,) = torch.autograd.grad(penalty(truth, x.double(), y.double()), truth)
    for name in backends(device):
        leaf = w.clone().requires_grad_()
        with ops.use_backend(name):
            (got,) = torch.autograd.grad(penalty(leaf, x, y), leaf)
        assert float((got.double() - wanted).norm()) <= 3e-6 * float(wanted.norm())


@pytest.mark.parametrize("device", DEVICES)
def test_equal_entries_have_the_sign_zero(device):
    x = torch.randn(1, 2, 3, device=device).repeat(19, 1, 1)
    g, c = torch.randn(19, 2, device=device), torch.randn(19, 2, 3, device=device)
    for name in backends(device):
        with ops.use_backend(name):
            for others in (None, x[:7].clone()):
                count = 19 if others is None else 7
                assert torch.equal(pairwise_l1(x, others), torch.full((19, 2), float(count), device=device))
                assert not any(d.any() for d in pairwise_l1_backward(g, x, others))
                cothers = None if others is None else c[:7]
                assert not any(d.any() for d in pairwise_l1_double_backward(c, cothers, g, x, others))


def test_a_third_derivative_says_that_there_is_none():
    m = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(functional.pairwise_l1(m).sum(), m, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), m, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"pairwise_l1_double_backward has no derivative: .* a third"):
        second.sum().backward()


# --- fast paths against the reference ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        (1, None, 1, 1), (2, None, 3, 2), (15, None, 2, 5), (16, None, 4, 4), (17, None, 1, 3), (64, None, 5, 16),
        (259, None, 2, 5), (33, None, 2, 32), (20, None, 2, 41), (1, 1, 1, 1), (3, 70, 3, 5), (70, 3, 2, 8),
        (40, 16, 1, 17), (5, 300, 2, 1), (257, 64, 1, 6),
    ],
)  # fmt: skip
def test_every_backend_equals_the_reference(shape, dtype, device):
    for name in backends(device, kd=shape[3]):
        with ops.use_backend(name):
            check(make(*shape, dtype, device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "shape", [(0, None, 3, 2), (0, 5, 3, 2), (5, 0, 3, 2), (4, None, 0, 2), (4, 3, 2, 0), (4, None, 2, 0)]
)
def test_empty_sizes(shape, device):
    for name in backends(device):
        with ops.use_backend(name):
            arguments = make(*shape, device=device)
            check(arguments)
            m = arguments[3].requires_grad_()
            o = functional.pairwise_l1(m, arguments[4])
            assert o.shape == (shape[0], shape[2])
            o.sum().backward()
            assert m.grad.shape == m.shape and not m.grad.any()
    if shape == (5, 0, 3, 2):
        assert not o.any()


@pytest.mark.parametrize("device", DEVICES)
def test_any_layout(device):
    def views(n):
        base = torch.randn(n + 2, 10, 8, device=device) / 3
        yield base.permute(2, 1, 0)[:, 3:, : n // 2]
        yield base[1::2, ::3, 2:]
        yield base[:1, :4, :3].expand(n, 4, 3)  # stride 0
        yield base.flatten()[3 : 3 + n * 4 * 3].view(n, 4, 3)  # not aligned to 16 bytes

    for name in backends(device):
        with ops.use_backend(name):
            for x in views(12):
                c = torch.randn_like(x)
                g = torch.randn(x.shape[1], x.shape[0], device=device).t()
                check((c, None, g, x, None))
                check((c, c.flip(0), g, x, x.flip(0)[:, :, :]))


@pytest.mark.parametrize("device", DEVICES)
def test_nan_and_infinity_as_the_reference(device):
    for name in set(backends(device)) - {"reference"}:
        for value in (float("nan"), float("inf")):
            for others in (None, 18):
                *_, g, x, y = make(37, others, 3, 2, device=device)
                x[20, 1, 0] = value
                with ops.use_backend(name):
                    got = [pairwise_l1(x, y), *pairwise_l1_backward(g, x, y)]
                with ops.use_backend("reference"):
                    wanted = [pairwise_l1(x, y), *pairwise_l1_backward(g, x, y)]
                got[1][20, 1, 1] = wanted[1][20, 1, 1] = 0  # an infinite row meets itself: nan·0 there, 0 here
                for a, b in zip(got, wanted):
                    torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-5, atol=1e-6)
                assert got[0][20, 1].isnan() or (value == float("inf") and others)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_apart_is_nothing(dtype, device):
    x = torch.tensor([-6e4, 0.0, 6e4, 86.0], device=device).to(dtype).view(4, 1, 1)
    for name in backends(device):
        with ops.use_backend(name):
            o = functional.pairwise_l1(x)
            (grad, _) = pairwise_l1_backward(torch.ones_like(o), x, None)
        torch.testing.assert_close(o, torch.ones_like(o))
        assert float(grad.abs().max()) < 1e-30


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_bits_on_every_run_and_any_number_of_threads(device):
    before = torch.get_num_threads()
    try:
        for others in (None, 130):
            arguments = make(259, others, 7, 5, device=device)
            for name in set(backends(device)) - {"reference"}:
                results = []
                for threads in (1, 2, 3, 7):
                    torch.set_num_threads(threads)
                    with ops.use_backend(name):
                        results.append(everything(*arguments))
                for result in results[1:]:
                    assert all(torch.equal(a, b) for a, b in zip(results[0], result))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
def test_ranks_against_all_equal_the_whole_batch(device):
    """Each rank's rows against everybody's: the sums of one process, and the same gradient in all."""
    m = torch.randn(30, 4, 5, device=device) / 3
    weight = torch.randn(30, 4, device=device)
    for name in backends(device):
        with ops.use_backend(name):
            whole = m.clone().requires_grad_()
            o = functional.pairwise_l1(whole)
            (o * weight).sum().backward()
            parts = m.clone().requires_grad_()
            ranks = [functional.pairwise_l1(parts[k : k + 10], parts) for k in (0, 10, 20)]
            (torch.cat(ranks) * weight).sum().backward()
        torch.testing.assert_close(torch.cat(ranks), o)
        torch.testing.assert_close(parts.grad, whole.grad)


# --- the operator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["compact", "permuted"])
def test_opcheck(layout, dtype, device):
    def tensor(*shape):
        x = torch.randn(*shape, device=device, dtype=dtype)
        return x if layout == "compact" else x.transpose(0, -1).contiguous().transpose(0, -1)

    x, y, c, d, g = (tensor(*s) for s in ((6, 4, 3), (5, 4, 3), (6, 4, 3), (5, 4, 3), (6, 4)))
    leaves = [t.detach().requires_grad_() for t in (g, x, y)]
    for op, args in (
        (pairwise_l1, (leaves[1], None)),
        (pairwise_l1, (leaves[1], leaves[2])),
        (pairwise_l1_backward, (leaves[0], leaves[1], None)),
        (pairwise_l1_backward, tuple(leaves)),
        (pairwise_l1_double_backward, (c, None, g, x, None)),
        (pairwise_l1_double_backward, (c, d, g, x, y)),
    ):
        torch.library.opcheck(op.overload, args)


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("device", DEVICES)
@BY_DTYPE
def test_compiled_equals_eager(dtype, compiler, device):
    def step(m, others):
        return functional.pairwise_l1(2 * m).sin() + functional.pairwise_l1(2 * m, 3 * others)

    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    for sizes in ((33, 65), (33, 65), (8, 1)):
        results = []
        for function in (step, compiled):
            torch.manual_seed(1)
            leaves = [(torch.randn(n, 3, 5, device=device) / 5).to(dtype).requires_grad_() for n in sizes]
            out = function(*leaves)
            out.sum().backward()
            results.append([out.detach(), *(x.grad for x in leaves)])
        for a, b in zip(*results):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_leaves_the_dtype_as_it_is(device):
    for dtype in (torch.float32, torch.bfloat16):
        m = (torch.randn(20, 3, 5, device=device) / 5).to(dtype)
        for name in backends(device):
            with ops.use_backend(name):
                wanted = functional.pairwise_l1(m)
                with torch.autocast(device, dtype=torch.bfloat16):
                    o = functional.pairwise_l1(m)
            assert o.dtype == dtype
            assert torch.equal(o, wanted)


def test_transforms_of_torch_func():
    m = torch.randn(3, 6, 2, 3)
    got = torch.func.grad(lambda x: functional.pairwise_l1(x).sum())(m[0])
    torch.testing.assert_close(got, pairwise_l1_backward(torch.ones(6, 2), m[0], None)[0])
    rows = torch.func.vmap(functional.pairwise_l1)(m)
    torch.testing.assert_close(rows, torch.stack([functional.pairwise_l1(x) for x in m]))


def test_the_table_says_which_backends_there_are():
    names = [(device, name) for op, device, name, _ in ops.table() if op == "pairwise_l1_double_backward"]
    assert names == [("cuda", k) for k in ("cuda", "triton", "reference")] + [("cpu", k) for k in ("cpu", "reference")]
    m = torch.randn(2, 3, 4, dtype=torch.float64)
    if "cpu" in backends("cpu"):
        with ops.use_backend("cpu"), pytest.raises(RuntimeError, match="float64 goes through the reference"):
            functional.pairwise_l1(m)
    cuda = pairwise_l1.backends[0]
    assert cuda.supports(torch.randn(2, 3, 33), None) == "kernels of 33 dimensions, the limit is 32"
    assert cuda.supports(torch.randn(2, 3, 32), None) is True


# --- memory -----------------------------------------------------------------------------------------------------------

PEAK = """
    import torch
    from ganfast import functional

    def status(field):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024

    def step(b, nk, kd):
        m = (torch.randn(b, nk, kd) / kd).requires_grad_()
        def run():
            o = functional.pairwise_l1(m)
            return o, *torch.autograd.grad(o, m, torch.ones_like(o))
        return run

    step(64, 100, 5)()  # threads and libraries are there
    run = step({shape})
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = status("VmRSS")
    o, grad = run()
    print(status("VmHWM") - before)
    assert o.isfinite().all() and grad.isfinite().all()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("shape", "limit"), [("256, 100, 5", 2), ("1024, 50, 16", 6)])
def test_peak_memory_of_forward_and_backward(shape, limit):
    """In MB, results included: 0.6 and 3.5 MB; the broadcast form holds 131 MB and 3.4 GB."""
    if "cpu" not in backends("cpu"):
        pytest.skip("the extension is not built here")
    code = textwrap.dedent(PEAK.replace("{shape}", shape))
    env = {**os.environ, "GANFAST_BACKEND": ""}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) <= limit


# --- in a CUDA graph, and with a GPU ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("others", [None, 70])
def test_graph_replay_equals_eager(others, dtype, graph_device):
    for name in backends(graph_device):
        with ops.use_backend(name):
            arguments = make(100, others, 6, 5, dtype, graph_device)
            eager, replay = captured(lambda: everything(*arguments))  # noqa: B023  called at once
            for t, new in zip(arguments, make(100, others, 6, 5, dtype, graph_device)):
                if t is not None:
                    t.copy_(new)
            assert all(torch.equal(a, b) for a, b in zip(replay(), eager()))


@pytest.mark.gpu
def test_gpu_memory_stays_linear():
    m = (torch.randn(4096, 100, 5, device="cuda") / 5).requires_grad_()
    for name in set(backends("cuda")) - {"reference"}:
        with ops.use_backend(name):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            functional.pairwise_l1(m).sum().backward()
            m.grad = None
            assert torch.cuda.max_memory_allocated() - before < 8 * m.numel() * 4
