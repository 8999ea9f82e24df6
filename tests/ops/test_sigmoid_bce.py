"""sigmoid_bce: truth is the reference in fp64; fast paths against it, bad input, eager, compiled, interpreted."""

import pytest
import torch
import torch.nn.functional as F
from graphed import captured
from ops.compilers import BY_DTYPE
from torch.autograd import gradcheck, gradgradcheck

from ganfast import functional, ops
from ganfast.ops.sigmoid_bce import sigmoid_bce, sigmoid_bce_backward, sigmoid_bce_double_backward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# ‖a − b‖/‖b‖. Loss: all terms are positive; a lane adds at most 256 of them in fp32, 2^-24·(√256 + 8 ulp of exp and
# log1p) doubled. Derivatives in fp32: a few ulp; in half types the rounding of the result.
LOSS_BOUND = 3e-6
BOUND = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}
TINY = {torch.float32: 0.0, torch.float16: 2**-25, torch.bfloat16: 0.0}  # half the smallest subnormal, per element


def backends(device):
    """The backends that can run here."""
    rows = [row for row in ops.table() if row[0] == "sigmoid_bce" and row[1] == device]
    return [name for _, _, name, answer in rows if answer is True]


def close(got, wanted, bound, slack=0.0):
    """‖got − wanted‖ ≤ bound·‖wanted‖ + slack·√n, slack being an absolute error per element."""
    wanted = wanted.detach()
    error, size = float((got.detach().double() - wanted).norm()), float(wanted.norm())
    limit = bound * size + slack * wanted.numel() ** 0.5
    assert error <= limit, f"{error} > {limit}"  # NaN fails


def wide(*tensors):
    return [None if t is None else t.detach().double().requires_grad_() for t in tensors]


def check_against_reference(real, fake, *targets):
    """Loss, gradients and second derivatives of the current backend against fp64."""
    given = [x for x in (real, fake) if x is not None]
    dtype = given[0].dtype
    c = [None if x is None else torch.randn_like(x) for x in (real, fake)]
    g = torch.tensor(1.5, device=given[0].device)
    with ops.use_backend("reference"):
        r, f = wide(real, fake)
        wanted = sigmoid_bce(r, f, *targets)
        wanted_grads = torch.autograd.grad(wanted, [x for x in (r, f) if x is not None])
        with torch.no_grad():
            wanted_second = sigmoid_bce_double_backward(*wide(*c), g.double(), r, f, *targets)
    leaves = [None if x is None else x.detach().requires_grad_() for x in (real, fake)]
    loss = functional.sigmoid_bce(*leaves, *targets)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    close(loss, wanted, LOSS_BOUND)
    for x, a, b in zip(given, torch.autograd.grad(loss, [x for x in leaves if x is not None]), wanted_grads):
        assert a.shape == x.shape and a.dtype == dtype
        # σ(x) − t cancels where σ(x) is near t: off by an ulp of 1, over n
        close(a, b, BOUND[dtype], TINY[dtype] + 2**-22 / x.numel())
    dg, *second = sigmoid_bce_double_backward(*c, g, real, fake, *targets)
    magnitude = sum(
        float(x.double().abs().mean()) for x in c if x is not None
    )  # |σ − t| ≤ 1: a bound of Σ|c·(σ − t)|/n
    assert abs(float(dg) - float(wanted_second[0])) <= LOSS_BOUND * magnitude
    for x, a, b in zip((real, fake), second, wanted_second[1:]):
        if x is not None:
            assert a.shape == x.shape and a.dtype == dtype
            close(a, b, BOUND[dtype], TINY[dtype])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sides", ["both", "real", "fake"])
def test_derivatives_to_second_order(sides, device):
    real = torch.randn(5, 2, dtype=torch.float64, device=device, requires_grad=True)
    fake = torch.randn(3, dtype=torch.float64, device=device, requires_grad=True)

    def loss(*given):
        rest = iter(given)
        r = next(rest) if sides != "fake" else None
        f = next(rest) if sides != "real" else None
        return functional.sigmoid_bce(r, f, 0.9, 0.2)

    leaves = {"both": (real, fake), "real": (real,), "fake": (fake,)}[sides]
    assert gradcheck(loss, leaves)
    assert gradgradcheck(loss, leaves)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("through", ["eager", "dispatcher"])
def test_second_order_reaches_g_and_the_logits(through, device):
    """The derivative of a penalty on the gradient, as in a double backward through a critic's head."""
    w = torch.randn(4, 4, dtype=torch.float64, device=device, requires_grad=True)
    x = torch.randn(6, 4, dtype=torch.float64, device=device)
    call = sigmoid_bce if through == "eager" else torch.ops.ganfast.sigmoid_bce

    def penalty(function):
        logits = torch.tanh(x @ w)
        loss = function(logits).square()  # g depends on the loss: the cotangent reaches g
        return torch.autograd.grad(loss, logits, create_graph=True)[0].square().sum() + loss

    def plain(z):
        return F.binary_cross_entropy_with_logits(z, torch.full_like(z, 0.9))

    (got,) = torch.autograd.grad(penalty(lambda z: call(z, None, 0.9, 0.0)), w)
    (wanted,) = torch.autograd.grad(penalty(plain), w)
    torch.testing.assert_close(got, wanted)


def test_a_third_derivative_says_that_there_is_none():
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(functional.sigmoid_bce(x, None), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"sigmoid_bce_double_backward has no derivative: .* a third"):
        second.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shapes", [((1,), (1,)), ((7, 3), (65,)), ((64, 1), (64, 1)), ((4097,), (9, 1000)), ((70001,), (3,))]
)
def test_every_backend_equals_the_reference(shapes, dtype, device):
    for name in backends(device):
        real, fake = ((4 * torch.randn(*s, device=device)).to(dtype) for s in shapes)
        with ops.use_backend(name):
            check_against_reference(real, fake, 0.9, 0.1)
            check_against_reference(real, None, 1.0, 0.0)
            check_against_reference(None, fake, 1.0, 0.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_finite_and_right_for_huge_logits(dtype, device):
    x = torch.tensor([1e4, -1e4, 88.0, -88.0, 104.0, -104.0, 17.0, -17.0, 0.0, -0.0], device=device).to(dtype)
    truth = x.double()
    for name in ["reference"] if dtype == torch.float64 else backends(device):
        for t in (0.0, 0.5, 1.0):
            with ops.use_backend(name):
                leaf = x.clone().requires_grad_()
                loss = functional.sigmoid_bce(None, leaf, 1.0, t)
                loss.backward()
            wanted = (F.softplus(truth) - t * truth).mean()
            assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
            residual = (torch.sigmoid(truth) - t) / 10
            torch.testing.assert_close(leaf.grad.double(), residual, rtol=2 * BOUND.get(dtype, 1e-7), atol=1e-7)


@pytest.mark.parametrize("device", DEVICES)
def test_nan_is_not_hidden(device):
    for name in backends(device):
        x = torch.randn(40, device=device)
        x[17] = float("nan")
        leaf = x.clone().requires_grad_()
        with ops.use_backend(name):
            loss = functional.sigmoid_bce(leaf, None)
            loss.backward()
        assert loss.isnan()
        assert leaf.grad.isnan().nonzero().flatten().tolist() == [17]


@pytest.mark.parametrize("device", DEVICES)
def test_any_layout(device):
    base = torch.randn(6, 10, 4, 4, device=device)
    layouts = [
        base.t() if base.dim() == 2 else base.transpose(0, 1),
        base[::2, 1:],
        base.to(memory_format=torch.channels_last),
    ]
    layouts += [base[:1, :1, :1, :1].expand(3, 2, 4, 4), base.flatten()[3:]]  # stride 0; not aligned to 16 bytes
    for name in backends(device):
        for x in layouts:
            with ops.use_backend(name):
                check_against_reference(x, x.flip(0), 0.9, 0.0)


@pytest.mark.parametrize("device", DEVICES)
def test_an_empty_side_is_nan_as_torchs_mean(device):
    empty, full = torch.empty(0, 1, device=device), torch.randn(5, device=device)
    for name in backends(device):
        with ops.use_backend(name):
            leaf = empty.clone().requires_grad_()
            loss = functional.sigmoid_bce(leaf, full)
            loss.backward()
            dg, *_ = sigmoid_bce_double_backward(empty, full, torch.ones((), device=device), empty, full, 1.0, 0.0)
        assert loss.isnan()
        assert leaf.grad.shape == (0, 1)
        torch.testing.assert_close(dg, (full * torch.sigmoid(full)).mean())  # a sum over nothing is 0


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_bits_on_every_run_and_any_number_of_threads(device):
    real, fake = torch.randn(100_003, device=device), torch.randn(50_000, device=device)
    c = torch.randn_like(real)
    before = torch.get_num_threads()
    try:
        for name in set(backends(device)) - {"reference"}:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                with ops.use_backend(name):
                    results.append((functional.sigmoid_bce(real, fake, 0.9), *_derivatives(real, fake, c)))
            for result in results[1:]:
                for a, b in zip(results[0], result):
                    assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)


def _derivatives(real, fake, c):
    """The operators themselves: torch's own sums depend on the number of threads."""
    g = torch.tensor(1.5, device=real.device)
    return (
        *sigmoid_bce_backward(g, real, fake, 0.9, 0.0),
        *sigmoid_bce_double_backward(c, fake, g, real, fake, 0.9, 0.0),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["compact", "permuted"])
def test_opcheck(layout, dtype, device):
    x = torch.randn(6, 4, device=device, dtype=dtype)
    x, y = (x, x + 1) if layout == "compact" else (x.t(), x[::2])
    g = torch.tensor(0.7, device=device, dtype=dtype)
    grads = [t.detach().requires_grad_() for t in (x, y)]
    for op, args in (
        (sigmoid_bce, (*grads, 0.9, 0.0)),
        (sigmoid_bce, (grads[0], None, 1.0, 0.0)),
        (sigmoid_bce_backward, (g, *grads, 0.9, 0.0)),
        (sigmoid_bce_backward, (g, None, grads[1], 0.9, 0.0)),
        (sigmoid_bce_double_backward, (x, y, g, x, y, 0.9, 0.0)),
        (sigmoid_bce_double_backward, (x, None, g, x, None, 0.9, 0.0)),
    ):
        torch.library.opcheck(op.overload, args)


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("device", DEVICES)
@BY_DTYPE
def test_compiled_equals_eager(dtype, compiler, device):
    def step(real, fake):
        return functional.sigmoid_bce(2 * real, 2 * fake, 0.9)

    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    for sizes in ((33, 65), (33, 65), (8, 1)):
        results = []
        for function in (step, compiled):
            torch.manual_seed(1)
            leaves = [torch.randn(n, 1, device=device).to(dtype).requires_grad_() for n in sizes]
            loss = function(*leaves)
            loss.backward()
            results.append([loss.detach(), *(x.grad for x in leaves)])
        for a, b in zip(*results):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_leaves_the_logits_as_they_are(device):
    x = torch.randn(50, 1, device=device).bfloat16().requires_grad_()
    wanted = functional.sigmoid_bce(x, None)
    for name in backends(device):
        with ops.use_backend(name), torch.autocast(device, dtype=torch.bfloat16):
            loss = functional.sigmoid_bce(x, None)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, wanted, rtol=LOSS_BOUND, atol=0)


def test_transforms_of_torch_func():
    real, fake = torch.randn(6), torch.randn(6)
    got = torch.func.grad(functional.sigmoid_bce)(real, fake)
    torch.testing.assert_close(got, (torch.sigmoid(real) - 1) / 6)
    rows = torch.func.vmap(lambda r: functional.sigmoid_bce(r, None))(torch.stack([real, fake]))
    torch.testing.assert_close(rows, torch.stack([functional.sigmoid_bce(x, None) for x in (real, fake)]))


def test_fp16_gradients_survive_a_loss_scale():
    x = torch.full((4096,), -11.0, dtype=torch.float16, requires_grad=True)  # σ/n = 4e-9, below fp16's 6e-8
    (functional.sigmoid_bce(None, x) * 65536).backward()
    wanted = torch.sigmoid(torch.tensor(-11.0)) * 16
    torch.testing.assert_close(x.grad[0].float(), wanted, rtol=2**-10, atol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, 1.0009, 3.7, 2.0**-9, 1.1 * 2.0**-14, 1e-7])
def test_every_half_value_is_read_and_rounded_as_torch_does(factor, dtype, device):
    bits = torch.arange(-(2**15), 2**15, device=device).to(torch.int16)
    c, x = bits.view(dtype), torch.zeros(2**16, dtype=dtype, device=device)
    magnitude = c.float().abs()
    c = torch.where((magnitude > 2.0**90) & magnitude.isfinite() | (magnitude < 2.0**-90), 1.0, c)  # products in range
    g = torch.tensor(factor * 2.0**18, device=device)  # σ'(0) = 1/4, n = 2^16: dx = c·factor
    for name in backends(device):
        with ops.use_backend(name):
            got = sigmoid_bce_double_backward(c, None, g, x, None, 1.0, 0.0)[1]
        wanted = (c.float() * torch.tensor(factor)).to(dtype)
        torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


# --- bad arguments ----------------------------------------------------------------------------------------------------

GOOD = torch.ones(3)


def test_sides_must_agree_and_be_there():
    with pytest.raises(ValueError, match="real_logits, fake_logits: got None for both"):
        functional.sigmoid_bce(None, None)
    with pytest.raises(TypeError, match=r"fake_logits: got dtype torch.float16, needs torch.float32 as real_logits"):
        functional.sigmoid_bce(GOOD, GOOD.half())
    with pytest.raises(ValueError, match=r"fake_logits: got device meta, needs cpu as real_logits"):
        functional.sigmoid_bce(GOOD, GOOD.to("meta"))


def test_the_registered_derivatives_check_before_a_pointer_leaves():
    with pytest.raises(ValueError, match=r"g: got shape \(3,\), needs \(\)"):
        torch.ops.ganfast.sigmoid_bce_backward(GOOD, GOOD, None, 1.0, 0.0)
    with pytest.raises(TypeError, match=r"g: got torch\.float64 on cpu, needs torch\.float32 on cpu"):
        torch.ops.ganfast.sigmoid_bce_backward(torch.tensor(1.0, dtype=torch.float64), GOOD, None, 1.0, 0.0)
    g = torch.tensor(1.0)
    with pytest.raises(ValueError, match=r"c_real: got shape \(2,\), needs \(3,\)"):
        torch.ops.ganfast.sigmoid_bce_double_backward(torch.ones(2), None, g, GOOD, None, 1.0, 0.0)
    with pytest.raises(ValueError, match="c_fake: got None, needs what its logits are"):
        torch.ops.ganfast.sigmoid_bce_double_backward(None, None, g, None, GOOD, 1.0, 0.0)


# --- in a CUDA graph --------------------------------------------------------------------------------------------------


def test_graph_replay_equals_eager(graph_device):
    for name in backends(graph_device):
        with ops.use_backend(name):
            real = torch.randn(1000, device=graph_device, requires_grad=True)
            fake = torch.randn(70_000, device=graph_device)

            def step(real=real, fake=fake):
                loss = functional.sigmoid_bce(real, fake, 0.9)
                return loss, *torch.autograd.grad(loss, real)

            eager, replay = captured(step)
            with torch.no_grad():
                real.copy_(torch.randn_like(real))
            assert all(torch.equal(a, b) for a, b in zip(replay(), eager()))
