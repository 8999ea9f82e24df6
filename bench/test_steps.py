"""Whole training steps: ganfast against what a user of PyTorch writes.

    pytest bench/test_steps.py --benchmark-only -m "not full"

The rows, all from the same weights on the same batch, are checked to have the losses of the plain eager fp32 step for
three updates. In the place "graph" each is captured in a CUDA graph.

    ganfast       ganfast.fuse(networks), its losses and penalties; the rest as tuned
    eager         as tutorials have it: fp32, NCHW, Adam's default, weight gradients of D that nobody needs
    tuned         as well as torch does it: channels_last, fused Adam, TF32, cudnn.benchmark, no wasted gradients
    compiled      tuned, the networks (penalties: nested torch.func.grad) under torch.compile
    traced        penalties: tuned, its double backward one region under torch.compile, by dynamo's trace_autograd_ops
    max-autotune  compiled with that mode; CUDA only

The precision of a group (bf16: autocast) is that of all its rows but "eager".
"""

import contextlib
import functools

import frame
import nets
import pytest
import torch
import torch.nn.functional as F
from frame import PLACES, Work

from ganfast import functional, penalty
from ganfast.fuse import fuse

BOUNDS = {"fp32": 5e-3, "bf16": 5e-2}  # of the losses of three updates: Adam's first steps are signs, not sizes
MODES = {"compiled": None, "max-autotune": "max-autotune-no-cudagraphs"}
AUTOTUNED = pytest.param("max-autotune", marks=[frame.full, pytest.mark.long])
PRECISIONS = ["fp32", *frame.in_full("bf16")]


@contextlib.contextmanager
def tuned(on=True):
    """TF32 and cuDNN's search, as a user switches them on for a run."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]


def autocast(device, precision):
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def place_on(module, row, device):
    memory = torch.contiguous_format if row == "eager" else torch.channels_last
    return module.to(device=device, memory_format=memory).train()


def adam(module, row, device):
    fast = {} if row == "eager" else {"fused": True}
    return torch.optim.Adam(module.parameters(), 2e-4, (0.5, 0.999), capturable=device == "cuda", **fast)


class Step:
    """step() → (losses,): an update, made on the first call; `history` has the losses of the first three."""

    def __init__(self, make, row, *args):
        self.make, self.row, self.args, self.update = make, row, args, None

    def __call__(self):
        with tuned(self.row != "eager"):
            if self.update is None:
                self.update = self.make(self.row, *self.args)
                self.history = torch.stack([self.update() for _ in range(3)]).double()
            return (self.update(),)


@functools.cache
def eager_losses(make, device, *args):
    """The losses of the first three updates of the plain eager step."""
    step = Step(make, "eager", "fp32", device, *args)
    step()
    return step.history


def precision_of(row, precision):
    return "fp32" if row == "eager" else precision


def run(measure, make, rows, row, precision, args, parts):
    """Measure one row of `rows`, which update alike, if their losses are those of "eager" in fp32."""
    if row == "max-autotune" and measure.place == "cpu":
        pytest.skip("max-autotune is for CUDA")
    steps = {name: Step(make, name, precision_of(name, precision), measure.device, *args) for name in rows}
    with tuned(row != "eager"):
        work = work_of(parts, frame.running(precision_of(row, precision), measure.place))

    def check(losses):
        assert losses[0].isfinite().all()
        for name in {next(iter(steps)), row}:
            error = frame.distance(steps[name].history, eager_losses(make, measure.device, *args))
            bound = BOUNDS[precision_of(name, precision)]
            assert error <= bound, f"{name} trains something else: losses {error:.2g} from eager's, at most {bound}"

    measure(steps, make=tuple, check=check, work=work)


# --- DCGAN ------------------------------------------------------------------------------------------------------------

# width, batch
SIZES = [(32, 16), *frame.in_full((32, 4), (32, 64), *((64, n) for n in (64, 128, 256, 1024)), (128, 64), (128, 256))]
CPU_MOST = 64 * 64  # width·batch: minutes beyond
ONLY_CPU = {(32, 4), (32, 64), (16, 4), (16, 64)}  # how a step scales with the batch there; a GPU has larger ones


def dcgan(row, precision, device, width, batch):
    """A function that updates D, then G with the same fakes: [loss_d, loss_g]."""
    g, d = nets.initialise(nets.generator(width), 1), nets.initialise(nets.discriminator(width), 2)
    if row == "ganfast":
        fuse(g), fuse(d)
    g, d = place_on(g, row, device), place_on(d, row, device)
    g_adam, d_adam = adam(g, row, device), adam(d, row, device)
    random = torch.Generator().manual_seed(3)
    real = torch.randn(batch, 3, 64, 64, generator=random).tanh().to(device)
    z = torch.randn(batch, 100, 1, 1, generator=random).to(device)
    if row in MODES:
        g, d = (torch.compile(net, mode=MODES[row], dynamic=False) for net in (g, d))
    bce = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(batch, 1, 1, 1, device=device), torch.zeros(batch, 1, 1, 1, device=device)

    def loss_of_d(real_logits, fake_logits):
        if row == "ganfast":
            return functional.sigmoid_bce(real_logits, fake_logits)
        return bce(real_logits.float(), ones) + bce(fake_logits.float(), zeros)

    def loss_of_g(logits):
        return functional.sigmoid_bce(logits, None) if row == "ganfast" else bce(logits.float(), ones)

    def update():
        d.requires_grad_(True)
        with autocast(device, precision):
            fake = g(z)
            loss_d = loss_of_d(d(real), d(fake.detach()))
        d_adam.zero_grad(set_to_none=True)
        loss_d.backward()
        d_adam.step()
        d.requires_grad_(row == "eager")
        with autocast(device, precision):
            loss_g = loss_of_g(d(fake))
        g_adam.zero_grad(set_to_none=True)
        loss_g.backward()
        g_adam.step()
        return torch.stack([loss_d.detach().float(), loss_g.detach().float()])

    return update


def work_of(parts, precision):
    """Work of (module, input, times its multiplications are done): activations once each time, Adam's state."""
    item = 2 if precision == "bf16" else 4
    operations = moved = 0.0
    for module, x, times in parts:
        flops, numbers, parameters = nets.cost(module, x)
        operations += times * flops
        moved += times * numbers * item + 28 * parameters  # w, m, v read and written, the gradient read
    return Work(bytes=moved, operations=operations, dtype=precision)


@pytest.mark.parametrize("row", ["ganfast", "eager", "tuned", *frame.in_full("compiled"), AUTOTUNED])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"width{size[0]}-batch{size[1]}")
@pytest.mark.parametrize("place", PLACES)
def test_dcgan(measure, place, size, precision, row):
    width, batch = size
    if place == "cpu" and width * batch > CPU_MOST:
        pytest.skip("minutes on a CPU")
    if place != "cpu" and size in ONLY_CPU:
        pytest.skip("a GPU has larger ones")
    # G: forward and both gradients; D: both of the two batches in its own update, forward and one gradient in G's
    with torch.device("meta"):  # to be counted only
        parts = [(nets.generator(width), torch.empty(batch, 100, 1, 1), 3)]
        parts += [(nets.discriminator(width), torch.empty(batch, 3, 64, 64), 8)]
    run(measure, dcgan, ["ganfast", row], row, precision, size, parts)


# --- critics with a gradient penalty ----------------------------------------------------------------------------------

CRITICS = {"conv": lambda width: nets.discriminator(width, batch_norm=False), "resnet": nets.ResNetCritic}
SIDES = {"conv": 64, "resnet": 32}


def penalised_loss(d, kind, real, fake, epsilon, gradient_of):
    """[loss, penalty] of the critic's update; gradient_of(x) is ∂ΣD/∂x, differentiable."""
    scores = d(torch.cat([real, fake])).flatten().float()
    of_real, of_fake = scores.chunk(2)
    if kind == "r1":
        norms = gradient_of(real).float().flatten(1).norm(2, dim=1)
        term = 5.0 * norms.square().mean()
        return F.softplus(-of_real).mean() + F.softplus(of_fake).mean() + term, term
    e = epsilon[:, None, None, None]
    norms = gradient_of(e * real + (1 - e) * fake).float().flatten(1).norm(2, dim=1)
    term = 10.0 * (norms - 1).square().mean()
    return of_fake.mean() - of_real.mean() + term, term


def by_double_backward(d, kind, precision, real, fake, epsilon):
    def gradient_of(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(d(x).sum(), x, create_graph=True)[0]

    with autocast(real.device.type, precision):
        loss, term = penalised_loss(d, kind, real, fake, epsilon, gradient_of)
    loss.backward()
    return torch.stack([loss.detach(), term.detach()])


def by_func_grad(d, kind, precision, mode):
    """torch.compile of one function: loss and gradients by nested torch.func.grad."""
    names, parameters = zip(*d.named_parameters())

    def loss_of(weights, real, fake, epsilon):
        def critic(x):
            return torch.func.functional_call(d, dict(zip(names, weights)), (x,))

        with autocast(real.device.type, precision):
            loss, term = penalised_loss(
                critic, kind, real, fake, epsilon, torch.func.grad(lambda x: critic(x).float().sum())
            )
        return loss, torch.stack([loss.detach(), term.detach()])

    both = torch.compile(torch.func.grad(loss_of, has_aux=True), mode=mode, dynamic=False)

    def gradients(real, fake, epsilon):
        found, losses = both(parameters, real, fake, epsilon)
        for p, grad in zip(parameters, found):
            p.grad = grad
        return losses

    return gradients


VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
TRACING = hasattr(torch._dynamo.config, "trace_autograd_ops") and VERSION > (2, 11)  # 2.11 refuses requires_grad_()


def by_traced_double_backward(d, kind, precision):
    """torch.compile of by_double_backward as it stands, torch.autograd.grad and backward() included."""
    both = torch.compile(by_double_backward, fullgraph=True, dynamic=False)

    def gradients(*batches):
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return both(d, kind, precision, *batches)

    return gradients


def by_ganfast(d, kind, precision, real, fake, epsilon):
    with autocast(real.device.type, precision):
        if kind == "wgan-gp":
            found = penalty.wgan_gp_step(d, real, fake, weight=10.0, eps=epsilon)
            return torch.stack([found.loss.float(), found.penalty.float()])
        term = penalty.r1(d, real, weight=10.0)
        loss = functional.sigmoid_bce(*d(torch.cat([real, fake])).flatten().chunk(2)) + term
    loss.backward()
    return torch.stack([loss.detach(), term.detach()]).float()


def critic_update(row, precision, device, kind, critic, width, batch):
    d = place_on(nets.initialise(CRITICS[critic](width), 1), row, device)
    optimizer = adam(d, row, device)
    random = torch.Generator().manual_seed(3)
    memory = torch.contiguous_format if row == "eager" else torch.channels_last
    real, fake = (
        torch.randn(batch, 3, SIDES[critic], SIDES[critic], generator=random).tanh().to(device, memory_format=memory)
        for _ in range(2)
    )
    epsilon = torch.rand(batch, generator=random).to(device)
    if row in MODES:
        gradients = by_func_grad(d, kind, precision, MODES[row])
    elif row == "traced":
        gradients = by_traced_double_backward(d, kind, precision)
    else:
        by = by_ganfast if row.startswith("ganfast") else by_double_backward
        by = torch.compile(by) if row == "ganfast compiled" else by

        def gradients(*batches):
            return by(d, kind, precision, *batches)

    def update():
        optimizer.zero_grad(set_to_none=True)
        losses = gradients(real, fake, epsilon)
        optimizer.step()
        return losses

    return update


CASES = [
    ("wgan-gp", "conv", 16, 16), ("wgan-gp", "resnet", 16, 16), ("r1", "conv", 16, 16),
    *frame.in_full(
        ("wgan-gp", "conv", 16, 4), ("wgan-gp", "conv", 16, 64),
        ("wgan-gp", "conv", 64, 32), ("wgan-gp", "conv", 64, 64), ("wgan-gp", "conv", 64, 256),
        ("wgan-gp", "resnet", 128, 64), ("wgan-gp", "resnet", 128, 256), ("r1", "conv", 64, 64),
    ),
]  # fmt: skip
CPU_LARGEST = {"conv": 64 * 32, "resnet": 16 * 16}  # width·batch


@pytest.mark.parametrize(
    "row", ["ganfast", "eager", "tuned", *frame.in_full("compiled", "traced", "ganfast compiled"), AUTOTUNED]
)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "{}-{}-width{}-batch{}".format(*case))
@pytest.mark.parametrize("place", PLACES)
def test_critic(measure, place, case, precision, row):
    kind, critic, width, batch = case
    if place == "cpu" and width * batch > CPU_LARGEST[critic]:
        pytest.skip("minutes on a CPU")
    if place != "cpu" and (width, batch) in ONLY_CPU:
        pytest.skip("a GPU has larger ones")
    if row == "ganfast compiled" and (kind, critic) != ("wgan-gp", "conv"):
        pytest.skip("first-order code as a whole: wgan_gp_step of a piecewise-linear nn.Sequential")
    if row == "traced" and (place, critic, precision) == ("cpu", "resnet", "bf16"):
        pytest.skip("torch.compile writes C++ for it that declares a variable twice (torch 2.13)")
    if row == "traced" and not TRACING:
        pytest.skip(f"torch {torch.__version__} cannot trace torch.autograd.grad")
    # forward, reverse and weight gradient of three batches (R1: of two) and one tangent sweep
    times = 10 if kind == "wgan-gp" else 8
    with torch.device("meta"):  # to be counted only
        parts = [(CRITICS[critic](width), torch.empty(batch, 3, SIDES[critic], SIDES[critic]), times)]
    run(measure, critic_update, ["ganfast", row], row, precision, case, parts)
