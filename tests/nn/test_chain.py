"""FusedSequential: a chain equals its layers one after the other, in all they compute and keep."""

import copy
import pickle

import pytest
import torch
from torch import nn

from ganfast import nn as gnn
from ganfast import ops
from ganfast.models import dcgan
from ganfast.nn import chain
from ganfast.ops import _tuning


def up(a, b, **more):
    return gnn.ConvTransposeBNReLU2d(a, b, 3, 2, 1, 1, **more)


def down(a, b, **more):
    return gnn.ConvAct2d(a, b, 3, 2, 1, batch_norm=True, **more)


def frozen(layer):
    layer.bn.eval()
    return layer


def with_bn(layer, **options):
    layer.bn = nn.BatchNorm2d(layer.bn.num_features, **options)
    return layer


NETWORKS = {
    "generator": lambda: [up(3, 4), up(4, 2), up(2, 3, batch_norm=False, activation="tanh")],
    "ends normalised": lambda: [down(3, 4), down(4, 2, activation="tanh"), down(2, 2, activation=None)],
    "down and up": lambda: [down(3, 4), up(4, 2, bias=True, activation="leaky_relu"), down(2, 1)],
    "from the output": lambda: [up(3, 4, activation="sigmoid"), down(4, 3, activation="softplus"), down(3, 2)],
    "from the input": lambda: [up(3, 4, activation="silu"), down(4, 3), up(3, 2, batch_norm=False, activation="gelu")],
    "cut by others": lambda: [up(3, 4), nn.AvgPool2d(2), up(4, 2), up(2, 2), nn.Flatten(), nn.LazyLinear(3)],
    "frozen within": lambda: [up(3, 4), frozen(up(4, 2)), up(2, 3), down(3, 2)],
    "without affine": lambda: [with_bn(up(3, 4), affine=False), with_bn(down(4, 2), momentum=None), down(2, 2)],
    "no running": lambda: [with_bn(up(3, 4), track_running_stats=False), down(4, 2), down(2, 2, momentum=None)],
    "one": lambda: [up(3, 4)],
    "none": list,
}


def pair(name):
    """The network layer by layer, and a copy as a chain; x."""
    torch.manual_seed(7)
    x = torch.randn(4, 3, 6, 5, dtype=torch.float64)
    plain = gnn.FusedSequential(*NETWORKS[name]()).double()
    plain.eval()(x)
    for layer in plain:
        layer.train(not (isinstance(layer, gnn.ConvTransposeBNReLU2d) and layer.bn and name == "frozen within"))
    if name == "frozen within":
        plain[0].train(), plain[2].train()
    chained = copy.deepcopy(plain)
    plain.chain, chained.chain = False, True
    return plain, chained, x


def derivatives(network, x, seed):
    x = x.clone().requires_grad_()
    y = network(x)
    leaves = [x, *network.parameters()]
    first = torch.autograd.grad((y * seed(y)).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves, materialize_grads=True)
    return [y, *first, *second]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_chain_equals_its_layers(name):
    plain, chained, x = pair(name)
    for scale in (1.0, 0.5):  # the running statistics of two batches
        results = [derivatives(network, scale * x, torch.cos) for network in (plain, chained)]
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    for (key, a), (_, b) in zip(plain.state_dict().items(), chained.state_dict().items()):
        torch.testing.assert_close(a, b, msg=key)
    torch.testing.assert_close(plain.eval()(x), chained.eval()(x))


def statistics_asked(network, x, monkeypatch):
    """For each convolution of a chain: (whether something stands before it, whether its moments go to the next)."""
    asked = []

    def spied(real):
        def spy(*args):
            asked.append((args[1] is not None, args[-1] is False))  # apply, or a slope
            return real(*args)

        spy.is_plain = real.is_plain
        return spy

    for module, name in ((ops.conv_bn_act, "conv_act"), (chain, "conv_bn_act")):
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    network(x)
    monkeypatch.undo()
    return asked


def test_a_chain_leaves_the_normalisation_to_the_next_convolution(monkeypatch):
    plain, chained, x = pair("generator")
    assert statistics_asked(chained, x, monkeypatch) == [(False, True), (True, True), (True, False)]
    assert statistics_asked(plain, x, monkeypatch) == []
    plain.chain = None
    assert statistics_asked(plain, x, monkeypatch) == []  # a CPU has no kernel for it
    assert statistics_asked(chained.eval(), x, monkeypatch) == []  # folded into the weights


def test_a_layer_with_hooks_runs_on_its_own(monkeypatch):
    _, chained, x = pair("generator")
    wanted = chained(x)
    seen = []
    chained[1].register_forward_hook(lambda module, args, y: seen.append(y))
    assert statistics_asked(chained, x, monkeypatch) == []
    torch.testing.assert_close(chained(x), wanted)
    assert len(seen) == 2 and seen[0].min() >= 0


def test_it_is_a_sequential():
    plain = nn.Sequential(*NETWORKS["generator"]())
    fused = gnn.FusedSequential(*plain)
    assert list(fused.state_dict()) == list(plain.state_dict())
    fused.chain = True
    assert type(fused[:2]) is gnn.FusedSequential and len(fused[:2]) == 2
    assert pickle.loads(pickle.dumps(fused)).chain and copy.deepcopy(fused).chain
    assert isinstance(dcgan.Generator(16, 1, 4, 2).layers, gnn.FusedSequential)
    assert isinstance(dcgan.Discriminator(16, 1, 2).layers, gnn.FusedSequential)


@pytest.mark.parametrize("chained", [True, False])
def test_a_parametrized_weight_is_computed_once_a_forward(chained):
    class Count(nn.Module):
        calls = 0

        def forward(self, weight):
            self.calls += 1
            return weight * 2

    network = gnn.FusedSequential(*NETWORKS["generator"]())
    network.chain = chained
    counts = [Count() for _ in network]
    for layer, count in zip(network, counts):
        nn.utils.parametrize.register_parametrization(layer.conv, "weight", count)
    for mode in (True, False):
        before = [c.calls for c in counts]
        network.train(mode)(torch.randn(2, 3, 6, 5))
        assert [c.calls for c in counts] == [n + 1 for n in before]


def test_one_value_per_channel_in_training_is_refused():
    network = gnn.FusedSequential(gnn.ConvAct2d(3, 4, 5, batch_norm=True), gnn.ConvAct2d(4, 2, 1))
    network.chain = True
    with pytest.raises(ValueError, match="one value per channel in training"):
        network(torch.randn(1, 3, 5, 5))
    assert network[0].bn.num_batches_tracked == 0


@pytest.mark.parametrize("faster", ["chain", "layers"])
def test_the_choice_is_measured_and_leaves_no_trace(faster, monkeypatch, tmp_path):
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path))
    monkeypatch.setattr(type(chain.conv_bn_act), "is_plain", lambda op, device: False)
    plain, measured, x = pair("generator")
    measured.chain = None
    calls = []

    def measure(ways, device, by_host):
        before = copy.deepcopy(measured.state_dict())
        for way in ways.values():
            way()
        assert all(torch.equal(a, b) for a, b in zip(before.values(), measured.state_dict().values()))
        calls.append(list(ways))
        return {"choice": faster, "microseconds": dict.fromkeys(ways, 1.0)}

    monkeypatch.setattr(_tuning, "measure", measure)
    monkeypatch.setattr(_tuning, "_known", {})
    random = torch.get_rng_state()
    for _ in range(2):
        torch.testing.assert_close(measured(x), plain(x))
    assert torch.equal(random, torch.get_rng_state())
    assert calls == [["layers", "chain"]] * 2  # two boundaries, once each
    for a, b in zip(plain.buffers(), measured.buffers()):
        torch.testing.assert_close(a, b)
    assert all(p.grad is None for p in measured.parameters())


def test_compiled_and_under_autocast():
    _, chained, _ = pair("generator")
    chained = chained.float()
    x = torch.randn(4, 3, 6, 5)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(chained), fullgraph=True, backend="aot_eager")
    results = []
    for network in (chained, compiled):
        y = network(x)
        y.square().sum().backward()
        results.append([y, *(p.grad for p in network.parameters()), *network.buffers()])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    chained.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = chained(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    for got, wanted in zip((p.grad for p in chained.parameters()), results[0][1:]):
        assert got.dtype == torch.float32 and float((got - wanted).norm()) <= 0.1 * float(wanted.norm())
