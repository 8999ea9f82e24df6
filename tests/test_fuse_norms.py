"""ganfast.fuse of InstanceNorm2d and the activation after it, in Sequentials and in forwards."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from penalty.truth import between, distance, double_backward, gradients, samples, wgan
from test_fuse import assert_same, fused_copy
from torch import nn

import ganfast
from ganfast import nn as gnn
from ganfast import penalty
from ganfast.models import cyclegan
from ganfast.nn import norm_group, norms


@pytest.fixture(params=["operator", "torch"], autouse=True)
def way(request, monkeypatch):
    """By the operator, and by torch's functions, which are taken where they are faster."""
    monkeypatch.setattr(norms, "prefers_torch", lambda x: request.param == "torch")
    monkeypatch.setattr(norm_group, "is_small", lambda x: False)


def sequential():
    return nn.Sequential(
        nn.ReflectionPad2d(2), nn.Conv2d(4, 6, 5), nn.InstanceNorm2d(6), nn.ReLU(True),
        nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(6, 5, 4, 2, 1)).eval(),
        nn.InstanceNorm2d(5, affine=True, track_running_stats=True), nn.LeakyReLU(0.3), nn.InstanceNorm2d(5),
        nn.Conv2d(5, 2, 3), nn.InstanceNorm2d(2, affine=True), nn.GELU("tanh"),
    )  # fmt: skip


class Block(nn.Module):
    """The norm in front, then behind a convolution; one activation is a function."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 4, 1, groups=2)

    def forward(self, x):
        y = self.conv1(F.leaky_relu(self.norm1(x), 0.2))
        y = torch.tanh(self.norm2(self.conv2(y)))
        return x + self.norm1(y)


@pytest.mark.parametrize("make, fused", [(sequential, 4), (Block, 3), (lambda: cyclegan.Generator(4, 3, 4, 1), 8)])
def test_equal_in_training_and_evaluation(make, fused):
    net = make()
    other, x = fused_copy(net, fused), torch.randn(2, 4, 8, 8)
    for training in (True, False):
        net.train(training), other.train(training)
        torch.testing.assert_close(net(x), other(x), rtol=1e-3, atol=1e-4)
    assert_same(net.double(), other.double(), x.double(), rtol=1e-6, atol=1e-7)  # statistics have seen fp32


def test_small_tensors_run_by_torchs_modules(monkeypatch):
    monkeypatch.undo()
    net, seen = fused_copy(nn.Sequential(nn.InstanceNorm2d(2), nn.ReLU()), 1), []
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: seen.append(x.shape) or x.relu())
    for side, order in (
        (16, "contiguous_format"),
        (16, "channels_last"),
        (64, "channels_last"),
        (128, "channels_last"),
    ):
        net(torch.randn(2, 2, side, side).contiguous(memory_format=getattr(torch, order)))
    assert seen == [(2, 2, 16, 16)] * 2


def test_the_report_names_them():
    report = ganfast.fuse(nn.ModuleDict({"s": sequential(), "b": Block()}))
    assert str(report).startswith("ganfast.fuse: 7 of 8 convolutions and norms fused\n")
    assert [(row.path, row.found, bool(row.reason)) for row in report.rows] == [
        ("s.1", "Conv2d + InstanceNorm2d + ReLU", False),
        ("s.4", "ParametrizedConvTranspose2d + InstanceNorm2d + LeakyReLU", False),
        ("s.7", "InstanceNorm2d", False),
        ("s.8", "Conv2d + InstanceNorm2d", False),
        ("b.norm1", "InstanceNorm2d + leaky_relu", False),
        ("b.conv2", "Conv2d + InstanceNorm2d + tanh", False),
        ("b.norm1", "InstanceNorm2d", False),
        ("b.conv1", "Conv2d", True),
    ]


def test_a_batch_of_one_in_channels_last():
    """Of which torch 2.13 differentiates InstanceNorm2d wrongly on a CPU."""
    net = cyclegan.Generator(3, 3, 4, 2).double()
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    ganfast.fuse(last)
    found = []
    for either in (net, last):
        x = torch.linspace(-1, 1, 3 * 16 * 16, dtype=torch.float64).sin().view(1, 3, 16, 16).requires_grad_()
        seed = torch.linspace(-1, 1, 3 * 16 * 16, dtype=torch.float64).cos().view(1, 3, 16, 16)
        wanted = [x, *(p for p in either.parameters() if p.dim() > 1)]
        found.append(torch.autograd.grad(either(x), wanted, seed))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_hooks_and_other_norms_run_by_themselves():
    net = sequential()
    net[2].register_forward_hook(lambda module, x, y: 2 * y)
    fused = copy.deepcopy(net)
    rows = {row.path: row.reason for row in ganfast.fuse(fused).rows}
    assert rows["1"] == "InstanceNorm2d has hooks" and not rows["4"]
    assert_same(net, fused, torch.randn(2, 4, 8, 8), rtol=1e-3, atol=1e-3)
    later = fused_copy(sequential(), 4)  # a hook that comes after fuse counts too
    seen = []
    later[6].register_forward_hook(lambda *args: seen.append(1))
    later(torch.randn(2, 4, 8, 8))
    assert seen == [1]


@pytest.mark.parametrize("make", [sequential, Block])
def test_errors_are_torchs(make):
    net = make()
    fused = fused_copy(net)
    for x in (torch.randn(2, 5, 8, 8), torch.randn(8, 8)):
        raised = []
        for either in (net, fused):
            with pytest.raises((RuntimeError, ValueError)) as error:
                either(x)
            raised.append(str(error.value))
        assert raised[0] == raised[1]
    single = nn.Sequential(nn.Conv2d(3, 4, 2), nn.InstanceNorm2d(4), nn.ReLU())
    ganfast.fuse(single)
    with pytest.raises(ValueError, match="Expected more than 1 spatial element"):
        single(torch.randn(2, 3, 2, 2))
    torch.testing.assert_close(single(torch.ones(3, 4, 4)).shape, torch.Size([4, 3, 3]))  # a sample without a batch


def test_copies_and_pickles():
    net, x = Block(), torch.randn(2, 4, 8, 8)
    fused = fused_copy(net, 3)
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        torch.testing.assert_close(other(x), copy.deepcopy(net)(x))


@pytest.mark.slow
def test_compiled_and_exported():
    net, x = Block(), torch.randn(2, 4, 8, 8)
    compiled = torch.compile(fused_copy(net, 3), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), copy.deepcopy(net)(x), rtol=1e-4, atol=1e-5)
    torch.compiler.reset()
    exported = torch.export.export(fused_copy(net, 3).eval(), (x,)).module()
    torch.testing.assert_close(exported(x), net.eval()(x))


# --- gradient penalties -----------------------------------------------------------------------------------------------


class Conditional(nn.Module):
    """Layers of norm_act in a forward that has an if, with classes and a map made of x."""

    def __init__(self, spade):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 1, 4)
        self.norm = gnn.ConditionalBatchNormAct2d(4, 3) if spade == "classes" else gnn.SPADEAct(4, 3, 5)
        self.adain, self.style, self.spade = gnn.AdaINAct(activation="leaky_relu"), nn.Linear(3, 8), spade
        self.norm.eval()

    def forward(self, x):
        h = self.first(x)
        if self.spade == "classes":
            h = self.norm(h, torch.arange(5) % 3)
        else:
            h = self.norm(h, x.detach())
        scale, shift = self.style(torch.linspace(0, 1, 15, dtype=x.dtype).view(5, 3)).chunk(2, 1)
        return self.last(self.adain(h, scale, shift)).flatten()


class Direct(nn.Module):
    """functional.norm_act itself, and its moments."""

    def __init__(self):
        super().__init__()
        self.conv, self.gain = nn.Conv2d(3, 4, 4, 2, 1), nn.Parameter(torch.randn(4))

    def forward(self, x):
        a, moments = ganfast.functional.norm_act(self.conv(x), 2, self.gain, activation="silu")
        return a.flatten(1).square().mean(1) + moments[1].sum(1)


CRITICS = {
    "layer in a Sequential": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), gnn.InstanceNormAct2d(4, affine=True, activation="leaky_relu"), nn.Conv2d(4, 1, 4)
    ),
    "without an activation": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), gnn.InstanceNormAct2d(4, activation=None), nn.SiLU(), nn.Conv2d(4, 1, 6)
    ),
    "classes": lambda: Conditional("classes"),
    "maps": lambda: Conditional("maps"),
    "the function": Direct,
    "fused Sequential": lambda: fused_copy(
        nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.InstanceNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4)), 1
    ),
    "fused forward": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), fused_copy(Block().eval(), 3), nn.Conv2d(4, 1, 8)),
}


@pytest.mark.parametrize("name", CRITICS)
def test_penalties_go_by_rules(name):
    critic = CRITICS[name]().double()
    real, fake, eps = samples((5, 3, 8, 8))
    found = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
    wanted = double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)[0]
    torch.testing.assert_close(found, wanted)
    assert distance(gradients(found, critic), gradients(wanted, critic)) < 1e-9
