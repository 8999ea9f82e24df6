"""What a CUDA graph cannot hold is found in one call, on a CPU too, and named by file and line."""

import copy
import gc
import linecache
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import optimizer as hooks

import ganfast
from ganfast.errors import InputError
from ganfast.functional import sigmoid_bce
from ganfast.graphs import dry_run
from ganfast.graphs.dry_run import COPIES, DRAWS, MAKES, READS, SCALER, SIZES, DryRun
from ganfast.nn import MinibatchDiscrimination


def item(x):
    return x.mean().item()


def to_float(x):
    return float(x.mean())


def condition(x):
    return x if x.mean() > 0 else -x


def printed(x):
    print(x)


def formatted(x):
    return f"{x.mean():.3f}"


def compared(x):
    return torch.equal(x, x) and torch.allclose(x, x)


def to_list(x):
    return x.tolist()


def to_numpy(x):
    return x.numpy()


def as_array(x):
    return np.asarray(x)


def to_host(x):
    return x.cpu()


def index(x):
    return [1, 2, 3][x.mean().long()]


def inverse(x):
    return torch.linalg.inv(torch.eye(3) + x[:3, :3])


def masked(x):
    return x[x > 0]


def put(x):
    y = torch.zeros_like(x)
    y[x > 0] = torch.ones(12)
    return y


def nonzero(x):
    return (x > 0).nonzero()


def unique(x):
    return torch.unique(x)


def made(x):
    return x * torch.tensor(0.9, device=x.device)


def made_like(x):
    return x.new_tensor([1.0])


BAD = {
    READS: [
        item, to_float, condition, printed, formatted, compared, to_list, to_numpy, as_array, to_host, index, inverse,
    ],
    SIZES: [masked, put, nonzero, unique],
    MAKES: [made, made_like],
}  # fmt: skip


def wanted(function):
    """Number and source of the line in which a function does it."""
    first = function.__code__.co_firstlineno
    line = first + (2 if function is put else 1)
    return line, linecache.getline(__file__, line).strip()


@pytest.mark.parametrize("text, bad", [(text, bad) for text, bads in BAD.items() for bad in bads])
def test_what_a_graph_cannot_hold_is_named(text, bad, capsys):
    def step(x):
        loss = (x * 2).sum()
        bad(x if bad is not put else torch.ones(3, 4))
        return loss

    with pytest.raises(InputError) as caught:
        ganfast.capture(step, torch.ones(3, 4))
    line, source = wanted(bad)
    head, *problems = str(caught.value).split("\n  ")
    assert head == "the step cannot become a CUDA graph:"
    assert problems == [f"{__file__}, line {line}, in {bad.__name__}: `{source}` {text}"]


def test_all_of_them_at_once_and_each_once():
    def step(x):
        for _ in range(3):
            x.mean().item()
        x.cpu()
        return x[x > 0]

    with pytest.raises(InputError) as caught:
        ganfast.capture(step, torch.ones(3))
    assert len(str(caught.value).splitlines()) == 1 + 3


def test_in_a_backward_and_in_a_network():
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * g.sum().item()

    class Net(nn.Linear):
        def forward(self, x):
            return super().forward(x) * x.norm().item()

    net = Net(3, 1)
    with pytest.raises(
        InputError, match=r"in forward: `return super.*\n.*in backward: `return g \* g.sum\(\).item\(\)` reads"
    ):
        ganfast.capture(lambda x: Reads.apply(net(x)).sum().backward(), torch.ones(2, 3))


def test_what_a_graph_can_hold_passes():
    """Noise, zeroing, masks of fixed size, clipping, numbers of Python's, autocast, copies on one device."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.LayerNorm(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(net.parameters())
    buffer = torch.zeros(3, 4)

    def step(x):
        optimizer.zero_grad()
        y = x + torch.randn_like(x) * 0.1 + torch.rand(1).expand_as(x)
        y[x > 0] = 0
        y = torch.where(x > 0, y, torch.zeros_like(y)).masked_fill(x > 2, 1.0)
        buffer.copy_(y)
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(y).float().square().mean() * (1 if x.shape[0] == 3 else 2)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss, norm, x[:, [0, 2]], torch.full((), 0.5, device=x.device)

    assert len(ganfast.capture(step, torch.ones(3, 4))(torch.ones(3, 4))) == 4


PIECES = {
    "gradient_penalty": lambda p, x: p.gradient_penalty(p.critic, x, p.fake).backward(),
    "wgan_gp_step": lambda p, x: p.wgan_gp_step(p.critic, x, p.fake),
    "r1": lambda p, x: p.r1(p.critic, x).backward(),
    "dragan": lambda p, x: p.dragan(p.critic, x).backward(),
    "lipschitz": lambda p, x: p.lipschitz(p.critic, x, p.fake).backward(),
    "sigmoid_bce": lambda p, x: sigmoid_bce(p.critic(x), p.critic(p.fake)).backward(),
    "minibatch": lambda p, x: p.minibatch(x.flatten(1)).sum().backward(),
    "fused": lambda p, x: p.fused(x).sum().backward(),
}


@pytest.mark.parametrize("name", PIECES)
def test_ganfasts_own_pieces_hold_in_a_graph(name, monkeypatch):
    """Their lines are not complained of, for they know where they run; here they are."""
    monkeypatch.setattr(dry_run, "_GANFAST", "nowhere")
    pieces = SimpleNamespace(**vars(ganfast.penalty))
    pieces.critic = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.GroupNorm(2, 8), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(128, 1)
    )
    pieces.fused = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()
    )
    ganfast.fuse(pieces.fused)
    pieces.minibatch = MinibatchDiscrimination(192, 5, 3)
    pieces.fake = torch.randn(4, 3, 8, 8)
    run = DryRun()
    with ganfast.ops.for_graph():
        run.run(lambda x: PIECES[name](pieces, x), (torch.randn(4, 3, 8, 8),))
    # on a CPU penalties look at the scores
    found = [problem for problem in run.problems() if "in check_scores: " not in problem]
    assert found == [] and run.parameters


def test_a_step_without_a_line_of_its_own():
    with pytest.raises(InputError, match=r"\n  the step reads values"):
        ganfast.capture(torch.Tensor.item, torch.ones(()))


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.Adagrad(p), lambda p: torch.optim.Adafactor(p), lambda p: torch.optim.LBFGS(p),
], ids=["Adagrad", "Adafactor", "LBFGS"])  # fmt: skip
def test_optimizers_that_count_on_the_host_are_refused_by_name(make):
    net = nn.Linear(3, 1)
    optimizer = make(net.parameters())
    before = copy.deepcopy(optimizer.state_dict())  # Adagrad's moments exist from the beginning

    def step(x):
        def loss():
            optimizer.zero_grad()
            value = net(x).square().mean()
            value.backward()
            return value

        return optimizer.step(loss)

    name = type(optimizer).__name__
    with pytest.raises(InputError, match=rf"the optimiser {name} keeps '\w+' on the host: use one that has capturable"):
        ganfast.capture(step, torch.ones(2, 3))
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_sparse_adam_is_refused():
    net = nn.Embedding(5, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(net.parameters())
    before = net.weight.detach().clone()

    def step(x):
        optimizer.zero_grad()
        net(x).sum().backward()
        optimizer.step()

    with pytest.raises(InputError, match="the optimiser SparseAdam keeps 'step' on the host"):
        ganfast.capture(step, torch.tensor([1, 2]))
    assert torch.equal(net.weight, before) and net.weight.grad is None


def test_an_optimizer_of_ones_own():
    class Signs(torch.optim.Optimizer):
        def __init__(self, params, count):
            super().__init__(params, {"lr": 0.1})
            self.count = count

        @torch.no_grad()
        def step(self):
            for p in self.param_groups[0]["params"]:
                if self.count:
                    self.state[p]["updates"] = self.state[p].get("updates", 0) + 1
                p -= 0.1 * p.grad.sign()

    for count in (False, True):
        net = nn.Linear(3, 1)
        optimizer = Signs(net.parameters(), count)
        before = net.weight.detach().clone()

        def step(x, net=net, optimizer=optimizer):
            optimizer.zero_grad()
            net(x).sum().backward()
            optimizer.step()

        if count:
            with pytest.raises(InputError, match="the optimiser Signs keeps 'updates' on the host"):
                ganfast.capture(step, torch.ones(2, 3))
        else:
            ganfast.capture(step, torch.ones(2, 3))
        assert torch.equal(net.weight, before) and not optimizer.state


@pytest.mark.parametrize("fused", [True, False])
def test_a_loss_scale(fused):
    net = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(net.parameters(), 0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)

    def step(x):
        optimizer.zero_grad()
        scaler.scale(net(x).square().mean()).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    before = net.weight.detach().clone(), scaler.state_dict()
    if fused:
        captured = ganfast.capture(step, torch.ones(2, 3))
        assert torch.equal(net.weight, before[0]) and scaler.state_dict() == before[1]
        captured(torch.ones(2, 3))
        assert scaler.get_scale() == 8
        ganfast.capture(step, torch.ones(2, 3))  # where it has a scale
        assert scaler.get_scale() == 8 and scaler._growth_tracker == 0
    else:
        with pytest.raises(InputError, match=re.escape("`scaler.step(optimizer)` " + SCALER)):
            ganfast.capture(step, torch.ones(2, 3))
        assert torch.equal(net.weight, before[0]) and scaler.state_dict() == before[1]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_schedule_inside_is_refused(frozen):
    net = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    def step(x):
        optimizer.step()
        schedule.step()

    if frozen:  # as a script does before it starts loaders
        gc.collect(), gc.freeze()
    with pytest.raises(InputError, match=r"ExponentialLR\.step would repeat one rate in every replay: call it after"):
        ganfast.capture(step, torch.ones(2, 3))
    assert schedule.last_epoch == 0 and optimizer.param_groups[0]["lr"] == 0.1 and schedule.get_last_lr() == [0.1]


def test_a_step_that_fails_is_undone():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()

    def step(x):
        net(x + torch.randn_like(x)).sum().backward()
        net[0].weight.data.zero_()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ganfast.capture(step, torch.ones(2, 3))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in net.parameters())
    assert not hooks._global_optimizer_pre_hooks


@pytest.mark.parametrize("seed", range(20))
def test_whatever_operators_write_is_put_back(seed):
    """Views, strides, dtypes, in place, out=, foreach, inputs too."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    kinds = [
        lambda: torch.randn(4, 6), lambda: torch.randn(6, 4).t(), lambda: torch.randn(8, 12)[::2, 1::2],
        lambda: torch.randint(9, (4, 6)), lambda: torch.randn(4, 6).half(), lambda: torch.randn(1, 6).expand(4, 6),
    ]  # fmt: skip
    tensors = [draw.choice(kinds)() for _ in range(5)]
    tensors += [tensors[0][1:], torch.randn(0, 6), nn.Parameter(torch.randn(4, 6))]
    writes = [
        lambda t: t.zero_(), lambda t: t[:1].fill_(3), lambda t: t.view(t.dtype).mul_(2), lambda t: t.random_(0, 5),
        lambda t: torch._foreach_add_([t], 1), lambda t: torch.add(t, 1, out=t), lambda t: t.detach().copy_(t + 1),
    ]  # fmt: skip

    def step(*inputs):
        with torch.no_grad():
            for t in inputs:
                whole = t if not t.is_floating_point() or 0 not in t.stride() else t[:1]
                if 0 in whole.stride():
                    continue
                for _ in range(3):
                    draw.choice(writes)(whole)

    before = [t.detach().clone() for t in tensors]
    run = DryRun()
    run.run(step, tuple(tensors))
    assert all(torch.equal(t, b) for t, b in zip(tensors, before))
    step(*tensors)
    assert not all(torch.equal(t, b) for t, b in zip(tensors, before))


def test_only_what_was_there_is_saved():
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(True), nn.Linear(64, 64), nn.ReLU(True))
    run, others = DryRun(), DryRun()
    others._python_objects()  # schedulers and scales that other tests have left
    run.run(lambda x: (net(x) * 2).add_(1).square().sum().backward(), (torch.ones(1000, 64),))
    assert run._undo.keys() - others._undo.keys() == {"rng"}
    assert {id(p) for p in net.parameters()} <= {id(p) for p in run.parameters}
    assert run.problems() == [] and not run.on_gpu


@pytest.mark.gpu
def test_on_a_gpu():
    constant = torch.ones(3)

    def step(x):
        x.mean().item()
        torch.tensor(2.0, device="cuda")
        constant.to(x.device)
        x.to("cpu")
        x[constant.long()]
        torch.rand(()) * x
        x * torch.tensor(2.0)  # a constant of the host's: held
        constant.sum().item()
        return x

    with pytest.raises(InputError) as caught:
        ganfast.capture(step, torch.ones(3, device="cuda"))
    found = [line.rsplit("` ", 1)[1] for line in str(caught.value).splitlines()[1:]]
    assert found == [READS, MAKES, COPIES, COPIES, COPIES, DRAWS]
