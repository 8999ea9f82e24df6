"""An eager loop on a GPU, launches being stubs: few numbers take torch's own operators, graphs and many our kernels."""

import sys

import pytest

pytest.importorskip("triton")

import host
import nets
import torch
import torch.nn.functional as F
from torch import nn

import ganfast
from ganfast import functional
from ganfast import nn as gnn
from ganfast.ops import for_graph, use_backend

LAST = torch.channels_last


@pytest.fixture
def launches(monkeypatch):
    """launches(call): how many kernels of ours it launches."""
    count = [0]

    def launched(*args, **kwargs):
        count[0] += 1

    monkeypatch.setattr(host, "_wait", launched)
    monkeypatch.setattr(host._Kernel, "run", staticmethod(launched))

    def of(call):
        count[0] = 0
        call()
        return count[0]

    with host.stubbed():
        yield of


def fused_generator():
    network = nets.generator(4)
    ganfast.fuse(network)
    return network.to(memory_format=LAST)


class Straight(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return F.leaky_relu(self.bn(self.conv(x)), 0.2)


def fused_straight():
    network = Straight()
    ganfast.fuse(network)
    return network.to(memory_format=LAST)


def layer():
    return gnn.ConvAct2d(3, 4, 3, 2, 1, batch_norm=True).to(memory_format=LAST)


NETWORKS = {
    "Sequential": (fused_generator, (2, 100, 1, 1)),
    "forward": (fused_straight, (2, 3, 8, 8)),
    "layer": (layer, (2, 3, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_few_numbers_take_torchs_own_operators(name, launches):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network, x = make(), torch.randn(shape).to(memory_format=LAST)
    for _ in range(3):
        assert launches(lambda: network(x).sum().backward()) == 0
    with for_graph():
        assert launches(lambda: network(x)) > 0
    assert launches(lambda: network(x)) == 0
    with use_backend("triton"):
        assert launches(lambda: network(x)) > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_many_numbers_are_measured(name, launches, monkeypatch):
    monkeypatch.setattr(functional, "SMALL", 100)
    make, shape = NETWORKS[name]
    network, x = make(), torch.randn(shape).to(memory_format=LAST)
    assert launches(lambda: network(x)) > 0  # the stub's choice
    choices = []

    def measure(candidates, device, by_host=False):
        choices.append((list(candidates), by_host))
        return {"choice": "torch" if "torch" in candidates else next(iter(candidates)), "microseconds": {}}

    with monkeypatch.context() as patch:  # undone before the stub's own measure is
        patch.setattr(ganfast.ops._tuning, "measure", measure)
        ganfast.ops._tuning._known.clear()
        assert launches(lambda: network(x)) == 0
    assert choices and set(map(str, choices)) == {str((["torch", "fused"], True))}


def test_what_changes_after_a_choice_is_still_right(launches):
    """Layers replaced, hooks, other inputs: the choice is about speed alone."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)).to(memory_format=LAST)
    fused = nn.Sequential(*plain)
    ganfast.fuse(fused)
    x = torch.randn(2, 3, 8, 8).to(memory_format=LAST)
    for _ in range(2):
        torch.testing.assert_close(fused(x), plain(x))
    seen = []
    fused[0].register_forward_hook(lambda *args: seen.append(1))
    fused[3] = nn.Conv2d(4, 5, 1)
    assert fused(x).shape[1] == 5 and seen == [1]


def test_functions_take_torchs_own_operators_and_check_first(launches):
    y, gain = torch.randn(2, 4, 6, 6).to(memory_format=LAST), torch.rand(4)
    mean, var = torch.zeros(4), torch.ones(4)
    assert launches(lambda: functional.batch_norm_act(y, mean, var, gain, None, True)) == 0
    with for_graph():
        assert launches(lambda: functional.batch_norm_act(y, mean, var, gain, None, True)) > 0
    with pytest.raises(ValueError, match=r"weight: got shape \(3,\), needs \(4,\)"):
        functional.batch_norm_act(y, mean, var, gain[:3], None, True)
    with pytest.raises(ValueError, match=r"momentum: got 2\.0, needs a number between 0 and 1"):
        functional.batch_norm_act(y, mean, var, gain, None, True, momentum=2.0)
    w = torch.randn(4, 4, 3, 3).to(memory_format=LAST)
    assert launches(lambda: functional.conv_bn_act(y, w)) == 0
    torch.testing.assert_close(functional.conv_bn_act(y, w), F.leaky_relu(F.conv2d(y, w), 0.2))
    got = functional.conv_bn_act(y, w, None, gain, None, mean, var, False, activation="tanh")
    torch.testing.assert_close(got, torch.tanh(F.batch_norm(F.conv2d(y, w), mean, var, gain)))


def python_calls(step) -> int:
    """Calls of Python's functions and of C's from Python in a step: the host's work, whatever machine this is."""
    count = [0]

    def profile(frame, event, argument):
        count[0] += event in ("call", "c_call")

    step()
    sys.setprofile(profile)
    try:
        step()
    finally:
        sys.setprofile(None)
    return count[0]


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_fused_network_costs_python_what_torchs_costs(network, launches):
    plain, fused = (getattr(nets, network)(2).to(memory_format=LAST) for _ in range(2))
    ganfast.fuse(fused)
    x = torch.randn((2, 100, 1, 1) if network == "generator" else (2, 3, 64, 64)).to(memory_format=LAST)
    for _ in range(3):
        fused(x), plain(x)
    ours, theirs = (python_calls(lambda net=net: net(x).sum().backward()) for net in (fused, plain))
    assert ours <= 1.1 * theirs, (ours, theirs)
