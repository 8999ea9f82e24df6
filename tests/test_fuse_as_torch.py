"""After ganfast.fuse: every kind of derivative, operations in place and traces for others are as the plain network's.

At sizes on both sides of 2¹⁸ activations; and by the operators, which run on a GPU, too.
"""

import copy
import importlib.util
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import ganfast
from ganfast import functional
from ganfast import nn as gnn
from ganfast.ops.conv_bn_act import conv_bn_act


class Straight(nn.Module):
    """Layers by attribute."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(2, 2, 3, 1, 1), nn.BatchNorm2d(2), nn.ReLU()
        self.last = nn.ConvTranspose2d(2, 2, 3, 1, 1)

    def forward(self, x):
        return torch.tanh(self.last(self.act(self.bn(self.conv(x)))))


class InPlace(Straight):
    """The activation is a function, in place."""

    def forward(self, x):
        return F.leaky_relu(self.bn(self.conv(x)), 0.2, True)


class Apart(Straight):
    """The activation is a function, not in place; then the block's input is added in place."""

    def forward(self, x):
        y = F.leaky_relu(self.conv(x))
        y += x
        return y


def critic():
    """Curved, normalised in training and not, and with no norm at all."""
    return nn.Sequential(
        nn.Conv2d(2, 2, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(2, 2, 3, 1, 1), nn.BatchNorm2d(2), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(2, 2, 3, 1, 1), nn.BatchNorm2d(2), nn.Tanh(), nn.Conv2d(2, 1, 1), nn.ReLU(True),
    )  # fmt: skip


def layers():
    """(torch's, ganfast's layers with the same values)."""
    down, up = gnn.ConvAct2d, gnn.ConvTransposeBNReLU2d
    ours = gnn.FusedSequential(
        down(2, 2, 3, 1, 1), down(2, 2, 3, 1, 1, batch_norm=True), up(2, 2, 3, 1, 1), up(2, 2, 1, activation="tanh")
    )
    act = nn.LeakyReLU(0.2), nn.LeakyReLU(0.2), nn.ReLU(), nn.Tanh()
    plain = [part for each, last in zip(ours, act) for part in (each.conv, each.bn or nn.Identity(), last)]
    return nn.Sequential(*copy.deepcopy(plain)), ours


NETS = {"Sequential": critic, "forward": Straight, "layers": layers}
SIDES = [4, 190]  # 4·2·190² activations are more than 2¹⁸


@pytest.fixture(params=["as it comes", "by operators"])
def ways(request, monkeypatch):
    if request.param == "by operators":
        monkeypatch.setattr(functional, "SMALL", 0)
        monkeypatch.setattr(type(conv_bn_act), "is_plain", lambda op, device: False)
    return request.param


def pair(make, training=True):
    """The plain network and the fused one."""
    torch.manual_seed(3)
    if make is layers:
        plain, fused = make()
    else:
        plain = make()
        fused = copy.deepcopy(plain)
        assert ganfast.fuse(fused).fused
    return plain.double().train(training), fused.double().train(training)


def loss(y):
    return (y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)).square().sum() / y.numel()


def forward_mode(net, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(net(forward_ad.make_dual(x, x.cos()))).tangent


def batched(net, x):
    y = net(x)
    seeds = torch.stack([torch.ones_like(y), y.detach().cos()])
    return torch.autograd.grad(y, [x, *net.parameters()], seeds, is_grads_batched=True, allow_unused=True)


def third(net, x):
    (first,) = torch.autograd.grad(loss(net(x)), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    return torch.autograd.grad(second.square().sum(), [x, *net.parameters()], allow_unused=True)


def jvp(net, x):
    return torch.func.jvp(net, (x.detach(),), (x.detach().cos(),))


def of_parameters(net, x):
    """∂loss/∂parameters by torch.func."""
    values = {name: p.detach() for name, p in net.named_parameters()}
    grads = torch.func.grad(lambda values: loss(torch.func.functional_call(net, values, x)))(values)
    return list(grads.values())


def jacrev(net, x):
    few = x.detach()[:, :, :4, :4]
    return torch.func.jacrev(lambda few: net(F.pad(few, (0, x.shape[3] - 4, 0, x.shape[2] - 4))).mean((1, 2, 3)))(few)


def vmap(net, x):
    return torch.func.vmap(net)(torch.stack([x.detach(), 2 * x.detach()]))


class ByFormula(nn.BatchNorm2d):
    """torch's own third derivative takes the batch's statistics for constants."""

    def forward(self, x):
        running = super().forward(x if not self.training else x.detach())
        if not self.training:
            return running
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        return (x - mean) * (var + self.eps).rsqrt() * self.weight[:, None, None] + self.bias[:, None, None]


TRANSFORMS = [jvp, of_parameters, jacrev, vmap]
KINDS = [forward_mode, batched, third, *TRANSFORMS]


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-8)  # a bias before a norm: sums of 2¹⁹ that cancel


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", NETS)
def test_derivatives(name, kind, training, side, ways):
    plain, fused = pair(NETS[name], training)
    if kind in TRANSFORMS and training:  # torch.func lets no running statistics change
        torch.func.replace_all_batch_norm_modules_(plain), torch.func.replace_all_batch_norm_modules_(fused)
    if kind is third and ways == "by operators":
        for module in plain.modules():
            module.__class__ = ByFormula if type(module) is nn.BatchNorm2d else type(module)
    x = torch.randn(4, 2, side, side, dtype=torch.float64)
    assert_close(*(kind(net, x.clone().requires_grad_()) for net in (fused, plain)))
    assert_close(list(fused.state_dict().values()), list(plain.state_dict().values()))


# --- operations in place on what comes out ----------------------------------------------------------------------------


def block(*layers):
    return lambda: nn.Sequential(nn.Conv2d(2, 2, 3, 1, 1), *copy.deepcopy(layers))


def add(y, x):
    y += x
    return y


BLOCKS = {  # name → (network, what is done to its output y, whether torch's backward then passes)
    "norm, LeakyReLU, y += x": (block(nn.BatchNorm2d(2), nn.LeakyReLU(0.2)), add, True),
    "norm, LeakyReLU in place, y += x": (block(nn.BatchNorm2d(2), nn.LeakyReLU(0.2, True)), add, False),
    "LeakyReLU, y += x": (block(nn.LeakyReLU(0.2)), add, True),
    "LeakyReLU in place, y += x": (block(nn.LeakyReLU(0.2, True)), add, False),
    "norm, ReLU, y += x": (block(nn.BatchNorm2d(2), nn.ReLU()), add, False),
    "ReLU, y += x": (block(nn.ReLU()), add, False),
    "tanh, relu_": (block(nn.Tanh()), lambda y, x: y.relu_(), False),
    "norm, relu_": (block(nn.BatchNorm2d(2)), lambda y, x: y.relu_(), True),
    "LeakyReLU, relu_": (block(nn.LeakyReLU(0.1)), lambda y, x: y.relu_(), True),
    "a function in place, y += x": (InPlace, add, False),
    "a function, y += x within": (Apart, lambda y, x: y, True),
}


def gradients(net, change, x):
    """Those of the parameters; None where torch's error of what was changed in place comes."""
    y = change(net(x), x)
    try:
        loss(y).backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return None
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("batch", [4, 64])  # of 64² pixels
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", BLOCKS)
def test_operations_in_place(name, training, batch):
    make, change, passes = BLOCKS[name]
    plain, fused = pair(make, training)
    x = torch.randn(batch, 2, 64, 64, dtype=torch.float64)
    a, b = (gradients(net, change, x) for net in (plain, fused))
    assert (a is not None) == (b is not None) == passes
    if passes:
        assert_close(b, a)


# --- double backward --------------------------------------------------------------------------------------------------


def convolutions_backward(net, x):
    """How many convolution_backward a gradient's norm takes, and the parameters' gradients."""
    count = [0]

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            count[0] += "convolution_backward" in str(function)
            return function(*args, **(kwargs or {}))

    with Counter():
        (dx,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        grads = torch.autograd.grad(dx.square().sum(), list(net.parameters()), materialize_grads=True)
    return count[0], grads


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("inplace", [True, False])
def test_a_leaky_relu_has_no_second_derivative(inplace, side):
    """torch's is a tensor of zeros, with which each convolution below it is derived once more."""
    plain, fused = pair(block(nn.LeakyReLU(0.2, inplace), nn.Conv2d(2, 2, 3), nn.LeakyReLU(0.2, inplace)))
    x = torch.randn(4, 2, side, side, dtype=torch.float64, requires_grad=True)
    assert torch.equal(fused(x), plain(x))
    (theirs, wanted), (ours, found) = (convolutions_backward(net, x) for net in (plain, fused))
    assert ours < theirs
    assert_close(found, wanted)


# --- traces for others ------------------------------------------------------------------------------------------------


def kinds(traced):
    return [node.kind() for node in traced.inlined_graph.nodes()]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("enabled", [True, False], ids=["grad", "no_grad"])
def test_a_trace_has_torchs_own_operators(name, training, side, enabled, ways):
    plain, fused = pair(NETS[name], training)
    x = torch.randn(4, 2, side, side, dtype=torch.float64)
    with torch.set_grad_enabled(enabled):
        a, b = (torch.jit.trace(net, x, check_trace=False) for net in (plain, fused))
    assert any("batch_norm" in kind for kind in kinds(b)) and not any("ganfast" in kind for kind in kinds(b))
    file = io.BytesIO()
    torch.jit.save(b, file)
    file.seek(0)
    plain, _ = pair(NETS[name], training)  # tracing has counted a batch
    other = torch.randn(4, 2, side, side, dtype=torch.float64)
    assert_close(torch.jit.load(file)(other), a(other))


@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="needs onnx")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mode", ["EVAL", "TRAINING"])
@pytest.mark.parametrize("name", NETS)
def test_onnx_by_tracing_has_its_own_operators(name, mode, side, ways):
    import onnx

    operators = []
    for net in pair(NETS[name], mode == "TRAINING"):
        file = io.BytesIO()
        x = torch.randn(4, 2, side, side)
        torch.onnx.export(net.float(), (x,), file, dynamo=False, training=getattr(torch.onnx.TrainingMode, mode))
        nodes = onnx.load_from_string(file.getvalue()).graph.node
        operators.append([(node.domain, node.op_type) for node in nodes])
    assert operators[0] == operators[1] and all(domain == "" for domain, _ in operators[1])
