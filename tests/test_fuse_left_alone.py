"""What ganfast.fuse leaves alone and says why; random networks; the report; the name ganfast.fuse."""

import copy
import re
import subprocess
import sys

import fuse_nets as nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuse import assert_same, fused_copy
from torch import nn

import ganfast


def layers(conv=None, bn=None, act=None):
    return nn.Sequential(conv or nn.Conv2d(3, 4, 3), bn or nn.BatchNorm2d(4), act or nn.ReLU())


def changed(change, which=0):
    net = layers()
    change(net[which])
    return net


class MyConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class MyNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


def old_spectral_norm(conv):
    nn.utils.spectral_norm(conv)


def noop(*args):
    return None


SEQUENTIALS = {
    "forward hook on the convolution": (lambda: changed(lambda m: m.register_forward_hook(noop)), "Conv2d has hooks"),
    "pre-hook on the norm": (lambda: changed(lambda m: m.register_forward_pre_hook(noop), 1), "BatchNorm2d has hooks"),
    "backward hook on the activation": (lambda: changed(lambda m: m.register_full_backward_hook(noop), 2), "ReLU has"),
    "backward pre-hook": (lambda: changed(lambda m: m.register_full_backward_pre_hook(noop)), "Conv2d has hooks"),
    "spectral norm": (lambda: changed(nn.utils.parametrizations.spectral_norm), "parametrized"),
    "weight norm": (lambda: changed(nn.utils.parametrizations.weight_norm), "parametrized"),
    "spectral norm, as a hook": (lambda: changed(old_spectral_norm), "Conv2d has hooks"),
    "groups": (lambda: layers(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), "groups=3"),
    "dilation": (lambda: layers(nn.Conv2d(3, 4, 3, dilation=2)), r"dilation=\(2, 2\)"),
    "padding mode": (lambda: layers(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), "padding_mode='reflect'"),
    "padding same": (lambda: layers(nn.Conv2d(3, 4, 3, padding="same")), "padding='same'"),
    "negative slope": (lambda: layers(act=nn.LeakyReLU(-0.5)), "negative_slope=-0.5"),
    "another norm": (lambda: layers(bn=nn.GroupNorm(2, 4)), "GroupNorm follows, which is none of"),
    "another activation": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ELU()), "ELU follows"),
    "GELU by tanh": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU("tanh")),
        r"GELU\(approximate='tanh'\) follows, which is none of",
    ),
    "another softplus": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(2.0)), r"Softplus\(beta=2.0"),
    "nothing": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3)), "nothing follows it"),
    "its own forward": (lambda: layers(MyConv(3, 4, 3)), "MyConv is not torch's own"),
    "a norm of its own": (lambda: layers(bn=MyNorm(4)), "MyNorm follows"),
}


@pytest.mark.parametrize("case", SEQUENTIALS)
def test_a_sequential_leaves_alone(case):
    make, reason = SEQUENTIALS[case]
    net = make()
    fused = copy.deepcopy(net)
    report = ganfast.fuse(fused)
    assert (report.fused, report.left_alone) == (0, 1)
    assert re.search(reason, report.rows[0].reason), report
    assert type(fused) is nn.Sequential
    x = torch.randn(3, 3, 8, 8)
    assert_same(net, fused, x, rtol=0, atol=0)


def test_what_cannot_run_here():
    net = layers(bn=nn.SyncBatchNorm(4))
    assert ganfast.fuse(net).rows[0].reason.startswith("SyncBatchNorm follows")
    wrong = layers(bn=nn.BatchNorm2d(5))
    assert ganfast.fuse(wrong).rows[0].reason == "BatchNorm2d has 5 features, the convolution 4 channels"
    quantised = layers(torch.ao.nn.quantized.Conv2d(3, 4, 3))
    assert "quantized" in ganfast.fuse(quantised).rows[0].reason


def test_lazy_layers_join_once_they_have_a_shape():
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Tanh())
    report = ganfast.fuse(net)
    assert [bool(row.reason) for row in report.rows] == [True, False]
    assert "LazyConv2d" in report.rows[0].reason
    net(torch.randn(2, 3, 8, 8))
    plain = nn.Sequential(*copy.deepcopy(list(net)))
    assert_same(plain, net, torch.randn(2, 3, 8, 8), rtol=1e-3, atol=1e-4)
    assert ganfast.fuse(net).fused == 2


FORWARDS = {
    nets.Branches: r"line 3 of Branches.forward is more than calls and assignments \(If\)",
    nets.Loop: r"more than calls and assignments \(For\)",
    nets.Reads: "reads self.strength, which may change",
    nets.Counter: "assigns to self.last",
    nets.Noisy: "makes a tensor that torch.fx would keep",
    nets.Helper: "uses math, which is not torch's",
    nets.Method: "reads self.block",
    nets.Decorated: "is decorated",
    nets.Inner: r"more than calls and assignments \(FunctionDef\)",
    nets.Untraceable: "torch.fx cannot trace Untraceable.forward",
    nets.Constant: "calls what torch.fx does not see",
    nets.Mixes: "takes \\*args",
    nets.Tapped: "its output is used 2 times",
    nets.Checkpointed: "does not call self.conv but hands it on",
    nets.Size: "uses int",
    nets.Sized: "more than one argument",
    nets.Unused: "does not call it",
}


@pytest.mark.parametrize("net", FORWARDS)
def test_a_forward_leaves_alone(net):
    plain = net()
    fused = copy.deepcopy(plain)
    row = next(row for row in ganfast.fuse(fused).rows if row.path == "conv")
    assert re.search(FORWARDS[net], row.reason), row
    assert type(fused) is net
    assert vars(fused).keys() == vars(plain).keys()  # tracing leaves nothing behind
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        a, b = plain(x), fused(x)
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_class_decorated_later():
    class Later(nets.Mixes):
        def forward(self, x):
            return self.act(self.bn(self.conv(x)))

    Later.forward = torch.no_grad()(Later.forward)
    net = Later()
    assert "is decorated" in ganfast.fuse(net).rows[0].reason
    assert not net(torch.randn(2, 3, 8, 8)).requires_grad


def test_a_norm_that_sees_two_batches_sees_them_in_order():
    net = nets.SharedNorm()
    fused = copy.deepcopy(net)
    reasons = {row.path: row.reason for row in ganfast.fuse(fused).rows}
    assert reasons["conv"] == "its BatchNorm2d is called for something else in between" and not reasons["other"]
    assert_same(net, fused, torch.randn(2, 3, 8, 8), rtol=1e-3, atol=1e-4)


def test_a_forward_set_on_the_instance():
    for net in (nets.Tapped(), layers()):
        net.forward = lambda x: x
        assert {row.reason for row in ganfast.fuse(net).rows if "layers" not in row.path} == {
            "the module has a forward set on it"
        }


def test_a_sequential_that_its_parent_takes_apart():
    net = nets.Taken()
    report = ganfast.fuse(net)
    assert {row.path: row.reason for row in report.rows}["layers.0"] == "Taken.forward takes the Sequential apart"
    assert type(net.layers) is nn.Sequential
    plain = nets.WholeAndPart()
    fused = fused_copy(plain, 1)
    assert_same(plain, fused, torch.randn(2, 3, 8, 8), rtol=1e-3, atol=1e-4)


def test_a_module_used_twice_runs_twice():
    conv, bn, act = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(True)
    net = nn.Sequential(conv, bn, act, conv, bn, act, conv, act)
    assert_same(net, fused_copy(net, 3), torch.randn(2, 3, 8, 8), rtol=1e-3, atol=1e-4)


class Block(nn.Sequential):
    def __init__(self, a, b):
        super().__init__(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.LeakyReLU(0.1))


def test_a_subclass_of_sequential_stays_one():
    net = nn.Sequential(Block(3, 4), Block(4, 2))
    fused = fused_copy(net, 2)
    assert isinstance(fused[0], Block) and type(fused[0]).__name__ == "Block"
    fused = copy.deepcopy(fused)
    assert ganfast.fuse(fused).fused == 2
    assert_same(net, fused, torch.randn(2, 3, 8, 8), rtol=1e-3, atol=1e-4)


# --- random networks, the report, the name ----------------------------------------------------------------------------


@st.composite
def sequentials(draw, depth=1):
    """A Sequential, also nested, of convolutions of any geometry, norms and activations; 4 channels everywhere."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        padding = draw(st.integers(0, kernel // 2))
        geometry = {"stride": stride, "padding": padding, "bias": draw(st.booleans())}
        same = {"kernel_size": draw(st.sampled_from([1, 3])), "padding": "same"}
        parts.append(
            draw(
                st.sampled_from(
                    [
                        nn.ConvTranspose2d(4, 4, kernel, **geometry, output_padding=stride - 1),
                        nn.ConvTranspose2d(4, 4, kernel, **geometry),
                        nn.Conv2d(4, 4, kernel, **geometry),
                        nn.Conv2d(4, 4, **same),
                        nn.Conv2d(4, 4, 1, groups=2),
                    ]
                )
            )
        )
        bn = st.sampled_from([None, nn.BatchNorm2d, lambda n: nn.BatchNorm2d(n, momentum=None), nn.InstanceNorm2d])
        act = st.sampled_from([None, nn.ReLU, nn.Tanh, nn.Sigmoid, lambda: nn.LeakyReLU(0.3), lambda: nn.ReLU(True)])
        parts += [make(4) for make in [draw(bn)] if make] + [make() for make in [draw(act)] if make]
        parts.append(nn.AdaptiveAvgPool2d(6))
        if depth and draw(st.integers(0, 3)) == 0:
            parts = [nn.Sequential(*parts), *draw(sequentials(depth=depth - 1))]
    return nn.Sequential(*parts)


@settings(max_examples=60, deadline=None)
@given(sequentials(), st.integers(0, 2**31))
def test_random_sequentials(net, seed):
    torch.manual_seed(seed)
    net = net.double()
    fused = fused_copy(net)
    assert list(fused.state_dict()) == list(net.state_dict())
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        net(x), fused(x)
    assert_same(net, fused, x, rtol=1e-7, atol=1e-8)


def test_the_report_is_a_table():
    net = nn.Sequential(nn.ConvTranspose2d(2, 3, 4), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 3, groups=1))
    report = ganfast.fuse(nn.ModuleDict({"g": net}))
    assert str(report) == repr(report)
    assert str(report).splitlines() == [
        "ganfast.fuse: 1 of 2 convolutions fused",
        "  g.0  ConvTranspose2d + BatchNorm2d + ReLU  fused",
        "  g.3  Conv2d                                left alone: nothing follows it",
    ]
    assert str(ganfast.fuse(nn.Linear(2, 2))) == "ganfast.fuse: 0 of 0 convolutions fused"


def test_what_is_no_module_is_named():
    with pytest.raises(TypeError, match=r"model: got dict, needs a torch.nn.Module"):
        ganfast.fuse({})


def test_the_name_is_the_function_whatever_was_imported_first():
    for first in ("from ganfast.fuse import Report", "import ganfast.nn"):
        code = f"{first}; import ganfast, torch; print(ganfast.fuse(torch.nn.Identity()))"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert result.stdout == "ganfast.fuse: 0 of 0 convolutions fused\n", result.stderr
