"""A captured step trains as the step does, bit for bit; graphs are tapes here (conftest.py), and real ones on a GPU."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ganfast
from ganfast.errors import InputError
from ganfast.graphs import WARM_UP

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2, betas=(0.5, 0.999)),
    "adam foreach": lambda p: torch.optim.Adam(p, 1e-2, foreach=True),
    "adam fused": lambda p: torch.optim.Adam(p, 1e-2, fused=True),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, 1e-2, amsgrad=True, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, 1e-2),
    "sgd momentum, dampening": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, dampening=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, foreach=True),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-2, foreach=True),
    "radam": lambda p: torch.optim.RAdam(p, 1e-2, foreach=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, 1e-2, foreach=True),
    "adamax": lambda p: torch.optim.Adamax(p, 1e-2, foreach=True),
    "asgd": lambda p: torch.optim.ASGD(p, 1e-2, foreach=True),
    "rprop": lambda p: torch.optim.Rprop(p, 1e-3, foreach=True),
}


class GAN:
    """A DCGAN in small, with what a person's own trainer keeps: an average, a count, noise of its own."""

    def __init__(self, optimizer=OPTIMIZERS["adam"], fused=True, device="cpu", penalty=None):
        torch.manual_seed(0)
        self.netG = nn.Sequential(
            nn.ConvTranspose2d(6, 8, 4), nn.BatchNorm2d(8), nn.ReLU(True), nn.ConvTranspose2d(8, 2, 4, 2, 1), nn.Tanh()
        ).to(device)
        self.netD = nn.Sequential(
            nn.Conv2d(2, 8, 4, 2, 1), nn.BatchNorm2d(8) if penalty is None else nn.Identity(), nn.LeakyReLU(0.2, True),
            nn.Conv2d(8, 1, 4), nn.Flatten(0),
        ).to(device)  # fmt: skip
        self.average = copy.deepcopy(self.netG).requires_grad_(False)
        if fused:
            ganfast.fuse(self.netG), ganfast.fuse(self.netD)
        self.optG, self.optD = optimizer(self.netG.parameters()), optimizer(self.netD.parameters())
        self.noise = torch.Generator(device).manual_seed(5)
        self.count = torch.zeros((), device=device)
        self.penalty = penalty
        self.calls = 0

    def step(self, real):
        self.calls += 1
        z = torch.randn(len(real), 6, 1, 1, device=real.device, generator=self.noise)
        fake = self.netG(z + 0.1 * torch.randn_like(z) + torch.zeros_like(z).uniform_(generator=self.noise))
        self.optD.zero_grad()
        if self.penalty is None:
            real_scores, fake_scores = self.netD(real), self.netD(fake.detach())
            loss_d = F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()
            loss_d.backward()
        else:
            loss_d = self.penalty(self.netD, real, fake.detach())
        self.optD.step()
        self.optG.zero_grad()
        loss_g = -self.netD(fake).mean()
        loss_g.backward()
        self.optG.step()
        self.count += 1
        with torch.no_grad():
            for a, b in zip(self.average.parameters(), self.netG.parameters()):
                a.lerp_(b, 0.1)
        return {"d": loss_d, "g": loss_g}

    def state(self):
        """Everything that training changes."""
        nets = [t for net in (self.netG, self.netD, self.average) for t in net.state_dict().values()]
        grads = [p.grad for net in (self.netG, self.netD) for p in net.parameters()]
        moments = [v for o in (self.optG, self.optD) for s in o.state.values() for v in s.values()]
        random = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [])]
        return [*nets, *grads, *moments, self.count, self.noise.get_state(), *random]


def with_penalty(critic, real, fake):
    loss = critic(fake).mean() - critic(real).mean() + ganfast.gradient_penalty(critic, real, fake)
    loss.backward()
    return loss


def merged(critic, real, fake):
    return ganfast.penalty.wgan_gp_step(critic, real, fake).loss


PENALTIES = {"dcgan": None, "gradient_penalty": with_penalty, "wgan_gp_step": merged}


def copied(state):
    return [v.clone() if isinstance(v, torch.Tensor) else v for v in state]


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else x == y
        for x, y in zip(a, b)
    )


def batches(count, size=4, device="cpu"):
    random = torch.Generator().manual_seed(9)
    return [torch.randn(size, 2, 8, 8, generator=random).to(device) for _ in range(count)]


def run(gan, step, reals):
    """Losses of each step; torch's own random numbers start anew."""
    torch.manual_seed(3)
    return [{name: float(v.detach()) for name, v in step(real).items()} for real in reals]


def as_on_a_gpu(gan):
    """What ``capture`` makes of its optimisers, so that the uncaptured steps do the same arithmetic."""
    from ganfast.graphs.captured import _make_capturable

    _make_capturable(gan.optD), _make_capturable(gan.optG)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_capture_changes_nothing(penalty, device):
    gan, (real,) = GAN(penalty=PENALTIES[penalty], device=device), batches(1, device=device)
    before = copied(gan.state())
    ganfast.capture(gan.step, real)
    assert same(before, gan.state()) and gan.calls == 1
    gan.step(real)  # also where moments and gradients are there
    before, grads = copied(gan.state()), [p.grad for p in gan.netD.parameters()]
    ganfast.capture(gan.step, real)
    assert all(p.grad is g for p, g in zip(gan.netD.parameters(), grads))
    steps = [s["step"] for s in gan.optD.state.values()]
    assert all(s.device.type == device for s in steps) and same(
        before, [v.to(b.device) for v, b in zip(gan.state(), before)]
    )
    gan.step(real)
    assert not same(before, gan.state())  # a step does change it


@pytest.mark.parametrize("penalty", PENALTIES)
def test_without_a_gpu_calls_are_the_steps_own(penalty):
    eager, other = (GAN(penalty=PENALTIES[penalty]) for _ in range(2))
    captured = ganfast.capture(other.step, batches(1)[0])
    assert run(eager, eager.step, batches(6)) == run(other, captured, batches(6))
    assert captured.graph is None and other.calls == 7 and same(eager.state(), other.state())
    assert not captured(batches(1)[0])["d"].requires_grad


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_graph_trains_as_the_step_does(penalty, fused, tape):
    eager, other = (GAN(penalty=PENALTIES[penalty], fused=fused) for _ in range(2))
    as_on_a_gpu(eager)
    captured = ganfast.capture(other.step, batches(1)[0])
    reals = batches(WARM_UP + 5)
    assert run(eager, eager.step, reals) == run(other, captured, reals)
    assert same(eager.state(), other.state())
    (graph,) = tape
    assert captured.graph is graph and graph.replays == 5
    assert [g._cdata for g in graph.generators] == [other.noise._cdata]
    assert other.calls == 1 + WARM_UP + 1  # the dry run, those as they are, and the capture


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_in_a_graph(name, tape):
    eager, other = GAN(OPTIMIZERS[name]), GAN(OPTIMIZERS[name])
    as_on_a_gpu(eager)
    captured = ganfast.capture(other.step, batches(1)[0])
    reals = batches(WARM_UP + 3)
    assert run(eager, eager.step, reals) == run(other, captured, reals)
    assert same(eager.state(), other.state()) and tape[0].replays == 3


def test_results_are_the_same_memory_and_inputs_are_copied(tape):
    def step(real, more):
        return real * 2, [more["a"] + 1, more["name"]], None

    captured = ganfast.capture(step, torch.zeros(3), {"a": torch.zeros(2), "name": "x"})
    for _ in range(WARM_UP):
        assert captured(torch.ones(3), {"a": torch.ones(2), "name": "x"})[0].tolist() == [2, 2, 2]
    first = captured(torch.ones(3), {"a": torch.ones(2), "name": "x"})
    kept = first[0].clone()
    second = captured(torch.full((3,), 5.0), {"a": torch.full((2,), 7.0), "name": "x"})
    assert second[0] is first[0] and second[0].tolist() == [10, 10, 10] and second[1][0].tolist() == [8, 8]
    assert kept.tolist() == [2, 2, 2] and second[1][1] == "x" and second[2] is None


@pytest.mark.parametrize("graph", [False, True], ids=["cpu", "graph"])
def test_inputs_that_differ_from_the_example(graph, request):
    if graph:
        request.getfixturevalue("tape")
    captured = ganfast.capture(lambda real, more: real * more, torch.zeros(8, 3), 2)
    assert captured(torch.ones(8, 3), 2).sum() == 48
    for inputs, words in [
        (
            (torch.ones(5, 3), 2),
            r"input 0: got float32 \(5, 3\), needs float32 \(8, 3\) as the example .*drop_last=True",
        ),
        ((torch.ones(8, 3).double(), 2), r"input 0: got float64 \(8, 3\), needs float32 \(8, 3\) as the example$"),
        ((4.0, 2), "input 0: got float, needs a tensor"),
        ((torch.ones(8, 3), 3), "input 1: got 3, needs 2: what is no tensor is a constant"),
        ((torch.ones(8, 3), torch.ones(())), "input 1: got tensor"),
        ((torch.ones(8, 3),), r"inputs: got \(\*,\), needs \(\*, \*\) as the example"),
        (([torch.ones(8, 3)], 2), r"inputs: got \(\[\*\], \*\), needs \(\*, \*\)"),
    ]:
        with pytest.raises(InputError, match=words):
            captured(*inputs)


@pytest.mark.parametrize("make", [
    lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 1 / (1 + n)),
    lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 9),
    lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False),
    None,
], ids=["step", "lambda", "cosine", "one cycle", "by hand"])  # fmt: skip
@pytest.mark.parametrize("before", [True, False], ids=["made before", "made after"])
def test_a_schedule_reaches_the_graph(make, before, tape):
    rates = [[], []]
    losses = []
    for i in range(2):
        gan = GAN(OPTIMIZERS["adam"])
        schedule = make and make(gan.optD) if before else None
        as_on_a_gpu(gan)
        step = ganfast.capture(gan.step, batches(1)[0]) if i else gan.step
        schedule = schedule or (make and make(gan.optD))
        torch.manual_seed(3)
        losses.append([])
        for n, real in enumerate(batches(9)):
            losses[-1].append(float(step(real)["d"].detach()))
            if schedule:
                schedule.step()
            else:
                for group in gan.optD.param_groups:
                    group["lr"] = 1e-2 / (2 + n) if i else torch.tensor(1e-2 / (2 + n))
            rates[i].append(float(gan.optD.param_groups[0]["lr"]))
    assert rates[0] == pytest.approx(rates[1], rel=1e-6) and len(set(rates[0])) > 4
    assert losses[0] == losses[1] and tape[0].replays == 6


def test_a_rate_that_the_graph_cannot_take_up_is_refused(tape):
    gan = GAN(OPTIMIZERS["sgd"])
    captured = ganfast.capture(gan.step, batches(1)[0])
    gan.optG.param_groups[0]["lr"] = 0.5
    with pytest.raises(InputError, match=r"SGD: lr became 0.5, and the graph has 0.01: use fused=True"):
        captured(batches(1)[0])
    gan = GAN(lambda p: torch.optim.SGD(p, 1e-2, fused=True))
    captured = ganfast.capture(gan.step, batches(1)[0])
    gan.optG.param_groups[0]["lr"] = 0.5
    captured(batches(1)[0])
    assert isinstance(gan.optG.param_groups[0]["lr"], torch.Tensor) and gan.optG.param_groups[0]["lr"] == 0.5


def test_a_loaded_optimizer_needs_a_new_capture(tape):
    gan = GAN()
    captured = ganfast.capture(gan.step, batches(1)[0])
    gan.optD.load_state_dict(gan.optD.state_dict())
    with pytest.raises(InputError, match=r"Adam: its state was loaded since: call ganfast.capture again"):
        captured(batches(1)[0])


@pytest.mark.parametrize("inside", [True, False], ids=["set_to_none", "zero"])
def test_gradients_zeroed_outside(inside, tape):
    """The graph holds forward and backward only; ``zero_grad`` and the optimiser's step are the loop's."""
    found = []
    for graph in (False, True):
        torch.manual_seed(0)
        net = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)

        def step(x, net=net):
            loss = net(x).square().mean()
            loss.backward()
            return loss

        if graph:
            step = ganfast.capture(step, torch.zeros(2, 3))
        for n in range(9):
            if n not in (2, 6):  # then it adds
                optimizer.zero_grad(set_to_none=inside)
            if n == 7:
                net.weight.grad = torch.full((1, 3), 0.5)  # and to what somebody put there
            step(torch.full((2, 3), n / 9))
            optimizer.step()
        found.append([net.weight.clone(), net.bias.clone(), net.weight.grad.clone()])
    assert tape[0].replays == 6 and same(*found)


@pytest.mark.parametrize("error, kind, words", [
    (RuntimeError("not permitted when stream is capturing\nCUDA error: look"), InputError,
     r"test_captured.py, line \d+: not permitted when .*earlier step may hold"),
    (KeyError("mine"), KeyError, "mine"),
], ids=["cuda", "another"])  # fmt: skip
def test_a_capture_that_fails_names_the_line_and_changes_nothing(error, kind, words, tape):
    gan = GAN()

    def step(real):
        losses = gan.step(real)
        if gan.calls == 1 + WARM_UP + 1:
            raise error
        return losses

    captured = ganfast.capture(step, batches(1)[0])
    for real in batches(WARM_UP):
        captured(real)
    before, grads = copied(gan.state()), [p.grad for p in gan.netG.parameters()]
    with pytest.raises(kind, match=words):
        captured(batches(1)[0])
    assert same(before, gan.state()) and all(p.grad is g for p, g in zip(gan.netG.parameters(), grads))


def test_autocast_around_a_step_is_refused(tape):
    net = nn.Linear(3, 1)

    def step(x):
        with torch.autocast("cpu", torch.bfloat16):
            return net(x)

    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(InputError, match=r"torch\.autocast is on around the step"),
    ):
        ganfast.capture(net, torch.ones(2, 3))
    captured = ganfast.capture(step, torch.ones(2, 3))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="enter it in the step"):
        captured(torch.ones(2, 3))
    assert captured(torch.ones(2, 3)).dtype == torch.bfloat16


def test_a_compiled_network_is_compiled_after_the_dry_run():
    """Under a mode torch.compile would run the network as it is, from then on."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    fast = torch.compile(net, backend=backend)

    def step(x):
        optimizer.zero_grad()
        loss = fast(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    captured = ganfast.capture(step, torch.ones(2, 3))
    before = len(compiled)
    losses = [captured(torch.ones(2, 3)).item() for _ in range(3)]
    assert losses[2] < losses[0] and (before, len(compiled)) == (0, 1)
    torch.compiler.reset()


@pytest.fixture
def exact(monkeypatch):
    """fp32 that is fp32, and the same convolutions each time."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def far(eager, other):
    """The largest relative difference of two runs' losses."""
    return max(abs(a[k] - b[k]) / max(abs(a[k]), 1e-2) for a, b in zip(eager, other) for k in a)


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_on_a_gpu_a_graph_trains_as_the_step_does(penalty, fused, exact):
    """As on the tape, but for the bits: the vendor promises none across streams, and a GAN multiplies roundings."""
    eager, other = (GAN(penalty=PENALTIES[penalty], fused=fused, device="cuda") for _ in range(2))
    as_on_a_gpu(eager)
    reals = batches(WARM_UP + 9, size=16, device="cuda")
    captured = ganfast.capture(other.step, reals[0])
    with ganfast.ops.for_graph():  # the same kernels
        losses = run(eager, eager.step, reals)
    assert far(losses, run(other, captured, reals)) < 1e-3
    assert captured.graph is not None and other.calls == 1 + WARM_UP + 1
    assert torch.equal(eager.noise.get_state(), other.noise.get_state()) and other.count == len(reals)
    assert all(s["step"] == len(reals) for s in other.optG.state.values())


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_on_a_gpu_optimizers_in_a_graph(name, exact):
    eager, other = GAN(OPTIMIZERS[name], device="cuda"), GAN(OPTIMIZERS[name], device="cuda")
    as_on_a_gpu(eager)
    reals = batches(WARM_UP + 4, size=16, device="cuda")
    captured = ganfast.capture(other.step, reals[0])
    with ganfast.ops.for_graph():
        losses = run(eager, eager.step, reals)
    assert far(losses, run(other, captured, reals)) < 1e-2 and captured.graph is not None


@pytest.mark.gpu
def test_on_a_gpu_a_schedule_reaches_the_graph():
    rates = []
    gan, real = GAN(device="cuda"), batches(1, device="cuda")[0]
    schedule = torch.optim.lr_scheduler.StepLR(gan.optG, 1, 0.5)
    captured = ganfast.capture(gan.step, real)
    sizes = []
    for _ in range(WARM_UP + 12):
        before = gan.netG[0].weight.detach().clone()
        captured(real)
        sizes.append(float((gan.netG[0].weight - before).abs().max()))
        rates.append(float(gan.optG.param_groups[0]["lr"]))
        schedule.step()
    assert rates == pytest.approx([1e-2 * 0.5**n for n in range(len(rates))], rel=1e-5)
    assert sizes[-1] < 1e-5 < sizes[0]  # Adam's updates are of the rate's size


@pytest.mark.gpu
def test_on_a_gpu_a_loss_scale_in_fp16(exact):
    found = []
    for graph in (False, True):
        gan = GAN(OPTIMIZERS["adam fused"], device="cuda")
        as_on_a_gpu(gan)
        scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40, growth_interval=4)

        def step(real, gan=gan, scaler=scaler):
            gan.optD.zero_grad()
            with torch.autocast("cuda", torch.float16):
                loss = gan.netD(real).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(gan.optD)
            scaler.update()
            return loss

        real = batches(1, size=16, device="cuda")[0]
        captured = ganfast.capture(step, real) if graph else step
        assert scaler.get_scale() == 2.0**40
        with ganfast.ops.for_graph():  # the same kernels
            losses = [float(captured(real).detach()) for _ in range(40)]
        found.append((losses, scaler.get_scale(), float(gan.optD.state[gan.netD[0].weight]["step"])))
    assert found[0][1] == found[1][1] < 2.0**40 and found[0][2] == found[1][2] < 40  # it overflowed, and settled
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-2, abs=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_and_no_memory_is_taken():
    gan = GAN(device="cuda", penalty=merged)
    host = [real.pin_memory() for real in batches(4)]
    captured = ganfast.capture(gan.step, host[0].cuda())
    for _ in range(WARM_UP + 2):
        captured(host[0])
    torch.cuda.synchronize()
    reserved = torch.cuda.memory_reserved()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [captured(real)["d"].clone() for real in host * 3]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_reserved() == reserved and torch.stack(losses).isfinite().all()


@pytest.mark.gpu
def test_on_a_gpu_a_capture_that_fails_leaves_a_step_that_runs():
    gan, real = GAN(device="cuda"), batches(1, device="cuda")[0]

    def step(real):
        losses = gan.step(real)
        torch.cuda.synchronize()  # no operator: no dry run sees it
        return losses

    captured = ganfast.capture(step, real)
    for _ in range(WARM_UP):
        captured(real)
    with pytest.raises(InputError, match=r"test_captured.py, line \d+: "):
        captured(real)
    assert all(value.isfinite() for value in gan.step(real).values())
