"""ganfast.fuse: the same numbers before and after, checkpoints both ways, and what it leaves alone."""

import copy
import io
import pickle

import pytest
import torch
from fuse_nets import Attributes, Bottleneck, Residual, critic, generator
from torch import nn
from torch.nn import functional as F
from torch_activations import torch_module

import ganfast
from ganfast import activations, functional
from ganfast.nn import FusedSequential
from ganfast.ops.conv_bn_act import conv_bn_act


def run(net, x, steps=2):
    """Everything that a training run sees: outputs, gradients, parameters and buffers, in training, then evaluation."""
    seen = []
    for training in (True,) * steps + (False,):
        net.train(training)
        x = x.detach().requires_grad_()
        y = net(x)
        net.zero_grad()
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        seen += [y.detach(), x.grad, *(p.grad for p in net.parameters() if p.grad is not None)]
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.01 * (0 if p.grad is None else p.grad)
        seen += [value.clone() for value in net.state_dict().values()]
    return seen


def assert_same(plain, fused, x, **bounds):
    left, right = run(plain, x), run(fused, x)
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b, **bounds)


def fused_copy(net, fused=None):
    """A fused copy; `fused`: how many convolutions that must be."""
    other = copy.deepcopy(net)
    report = ganfast.fuse(other)
    if fused is not None:
        assert report.fused == fused, report
    return other


NETS = [
    (generator, (3, 6, 1, 1), 3),
    (critic, (3, 3, 16, 16), 3),
    (Attributes, (3, 4, 8, 8), 5),
    (Bottleneck, (3, 4, 5, 5), 2),
]


@pytest.mark.parametrize("make, shape, fused", NETS)
def test_equal_in_training_and_evaluation(make, shape, fused):
    net = make().double()
    assert_same(net, fused_copy(net, fused), torch.randn(shape).double(), rtol=1e-9, atol=1e-10)


@pytest.fixture
def operators(monkeypatch):
    """The operators run everywhere, also where a CPU would rather take torch's."""
    monkeypatch.setattr(functional, "SMALL", 0)
    monkeypatch.setattr(type(conv_bn_act), "is_plain", lambda op, device: False)


@pytest.mark.parametrize("make, shape, fused", NETS)
def test_equal_by_the_operators(make, shape, fused, operators):
    net = make().double()
    assert_same(net, fused_copy(net, fused), torch.randn(shape).double(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("make, shape, fused", NETS)
def test_equal_in_fp32_and_channels_last(make, shape, fused, operators):
    net = make().to(memory_format=torch.channels_last)
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    assert_same(net, fused_copy(net, fused), x, rtol=1e-3, atol=1e-4)


class Functions(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, 1, 1) for _ in range(8))

    def forward(self, x):
        x = F.silu(self.convs[0](x), inplace=True)
        x = F.gelu(self.convs[1](x), approximate="none")
        x = F.softplus(self.convs[2](x), 1, threshold=20)
        x = torch.sigmoid(self.convs[3](x))
        x = self.convs[4](x).sigmoid()
        x = F.leaky_relu(self.convs[5](x), 0.3)
        x = F.gelu(self.convs[6](x), approximate="tanh")  # another one
        return F.softplus(self.convs[7](x), 2.0)


def test_functions_with_their_options(operators):
    net, x = Functions(), torch.randn(2, 3, 6, 6)
    fused = copy.deepcopy(net)
    assert [row.reason == "" for row in ganfast.fuse(fused).rows] == [True] * 6 + [False] * 2
    torch.testing.assert_close(fused(x), net(x))


@pytest.mark.parametrize("name", [name for name, row in activations.ROWS.items() if row.layer])
def test_every_activation_of_the_table(name, operators):
    layer, x = torch_module(name), torch.randn(2, 3, 6, 6)
    for net in (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), layer), nn.Sequential(nn.Conv2d(3, 4, 3), layer)):
        fused = copy.deepcopy(net)
        assert ganfast.fuse(fused).fused == 1
        torch.testing.assert_close(fused(x), net(x))


def test_a_gradient_penalty_is_equal():
    net = Attributes().double()
    x = torch.randn(3, 4, 8, 8).double().requires_grad_()
    grads = []
    for either in (net, fused_copy(net, 5)):
        (g,) = torch.autograd.grad(either(x).sum(), x, create_graph=True)
        penalty = (g.flatten(1).norm(dim=1) - 1).square().mean()
        grads.append(torch.autograd.grad(penalty, list(either.parameters()), materialize_grads=True))
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_what_is_changed_in_place_stays_so():
    net = Residual()
    fused = fused_copy(net, 2)
    for autocast in (False, True):  # y += x keeps the dtype of y
        x = torch.randn(2, 3, 8, 8)
        inputs = x.clone(), x.clone()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            a, b = net(inputs[0]), fused(inputs[1])
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(inputs[0], x - 1)
        torch.testing.assert_close(inputs[1], x - 1)


def test_arguments_keep_their_names_and_defaults():
    net = Attributes()
    fused = fused_copy(net, 5)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(fused(gain=3.0, x=x), net(x, 3.0))
    with pytest.raises(TypeError, match="unexpected keyword argument 'loss'"):
        fused(x, loss=1)


def test_an_operator_does_run(monkeypatch, operators):
    calls = []
    layer = ganfast.functional.layer
    monkeypatch.setattr(
        ganfast.functional, "layer", lambda *args: (calls.append((args[-3][0], args[-2:])), layer(*args))[1]
    )
    fused = fused_copy(generator())
    fused.chain = False  # whether a chain is faster is measured
    fused(torch.randn(2, 6, 1, 1))
    assert calls == [(True, pair) for pair in (("relu", 0.0), ("relu", 0.0), ("tanh", 0.0))]
    calls.clear()
    fused_copy(Attributes())(torch.randn(2, 4, 8, 8))
    pairs = [("leaky_relu", 0.2), ("relu", 0.0), ("leaky_relu", 0.01), ("tanh", 0.0), (None, 0.0)]
    assert [pair for _, pair in calls] == pairs


# --- what a user has beside the network: checkpoints, optimisers, copies ----------------------------------------------


@pytest.mark.parametrize("make, shape, fused", NETS)
def test_checkpoints_and_parameters(make, shape, fused):
    plain, net = make(), make()
    before = [*net.named_parameters(), *net.named_buffers(), *net.named_modules()]
    keys = list(net.state_dict())
    ganfast.fuse(net)
    after = [*net.named_parameters(), *net.named_buffers(), *net.named_modules()]
    assert all(a[0] == b[0] and a[1] is b[1] for a, b in zip(before, after)) and len(before) == len(after)
    assert list(net.state_dict()) == keys
    net.load_state_dict(plain.state_dict(), strict=True)
    assert_same(copy.deepcopy(plain), copy.deepcopy(net), torch.randn(shape), rtol=1e-3, atol=1e-4)
    run(net, torch.randn(shape))
    plain.load_state_dict(net.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), net.state_dict().values()))


def test_an_optimiser_made_before_goes_on():
    net = generator()
    optimizer = torch.optim.Adam(net.parameters())
    ganfast.fuse(net)
    old = [p.detach().clone() for p in net.parameters()]
    net(torch.randn(3, 6, 1, 1)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(old, net.parameters()))


def test_initialisation_by_class_name():
    def weights_init(module):
        if "Conv" in type(module).__name__:
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif "BatchNorm" in type(module).__name__:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)

    for make in (generator, Attributes):
        values = []
        for fuse in (False, True):
            torch.manual_seed(3)
            net = make()
            if fuse:
                ganfast.fuse(net)
            net.apply(weights_init)
            values.append(net.state_dict().values())
        assert all(torch.equal(a, b) for a, b in zip(*values))


def saved(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def replica(net):
    """As torch.nn.DataParallel makes one on another device: new modules, new parameters."""
    other = net._replicate_for_data_parallel()
    for name, child in net.named_children():
        other._modules[name] = replica(child)
    for name, p in net._parameters.items():
        other._parameters[name] = None if p is None else nn.Parameter(p.detach() * 2)
    return other


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "pickle protocol 2": lambda net: pickle.loads(pickle.dumps(net, protocol=2)),
    "torch.save": saved,
    "half and back": lambda net: net.half().float(),
    "compile": lambda net: torch.compile(net, backend="aot_eager", fullgraph=True),
    "fused again": lambda net: (ganfast.fuse(net), net)[1],
    "replica": replica,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("make, shape, fused", [NETS[0], NETS[2], NETS[3]])
def test_copies_stay_fused_and_equal(how, make, shape, fused, monkeypatch):
    torch._dynamo.reset()
    net = make()
    other = COPIES[how](fused_copy(net, fused))
    assert isinstance(net, nn.Sequential) or isinstance(getattr(other, "_orig_mod", other), make)
    expected = replica(net) if how == "replica" else net.half().float() if how == "half and back" else net
    x = torch.randn(shape)
    torch.testing.assert_close(other(x), expected(x))
    for (key, a), b in zip(expected.state_dict().items(), other.state_dict().values()):
        torch.testing.assert_close(a, b, msg=key)
    assert how == "compile" or ganfast.fuse(other).fused == fused


def test_half_precision_and_autocast():
    net = critic()
    fused = fused_copy(net, 3)
    x = torch.randn(3, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fused(x), net(x), rtol=0.05, atol=0.05)
    torch.testing.assert_close(fused.bfloat16()(x.bfloat16()), net.bfloat16()(x.bfloat16()), rtol=0.05, atol=0.05)


def test_functional_call_sees_its_parameters():
    net = Attributes()
    fused = fused_copy(net, 5)
    x = torch.randn(2, 4, 8, 8)
    values = {name: p + 0.1 for name, p in net.named_parameters()}
    torch.testing.assert_close(torch.func.functional_call(fused, values, x), torch.func.functional_call(net, values, x))


@pytest.mark.parametrize("make, shape, fused", NETS[1:3])
def test_fx_traces_the_modules_themselves(make, shape, fused):
    net = make()
    traced = torch.fx.symbolic_trace(fused_copy(net, fused))
    assert not any(node.target is ganfast.nn.fused_group.run_group for node in traced.graph.nodes)
    x = torch.randn(shape)
    torch.testing.assert_close(traced(x), net(x))


def test_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = critic()
        wrapped = nn.parallel.DistributedDataParallel(fused_copy(net, 3))
        other = nn.parallel.DistributedDataParallel(copy.deepcopy(net))
        assert ganfast.fuse(other).fused == 3  # after wrapping, too
        for fused in (wrapped, other):
            assert_same(copy.deepcopy(net), fused, torch.randn(3, 3, 16, 16), rtol=1e-3, atol=1e-4)
    finally:
        torch.distributed.destroy_process_group()


def test_frozen_batch_norm_and_its_other_modes():
    for change in (
        lambda bn: bn.eval(),
        lambda bn: setattr(bn, "track_running_stats", False),
        lambda bn: setattr(bn, "momentum", 0.5),
        lambda bn: setattr(bn, "momentum", None),
    ):
        net = generator()
        fused = fused_copy(net)
        x = torch.randn(3, 6, 1, 1)
        for either in (net, fused):
            change(either[1])
        for _ in range(2):
            torch.testing.assert_close(net(x), fused(x))
        for a, b in zip(net.state_dict().values(), fused.state_dict().values()):
            torch.testing.assert_close(a, b)


# --- changes after fusing ---------------------------------------------------------------------------------------------


def add_hooks(net):
    net.seen = []
    convs = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU))]
    for module in convs:
        module.register_forward_hook(lambda m, args, y: net.seen.append(y.detach().clone()))


def spectral(net):
    torch.manual_seed(0)
    for module in [m for m in net.modules() if isinstance(m, nn.Conv2d)]:
        nn.utils.parametrizations.spectral_norm(module)


def old_weight_norm(net):
    for module in [m for m in net.modules() if isinstance(m, nn.Conv2d)]:
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(module)


def other_layers(net):
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                torch.manual_seed(0)
                setattr(parent, name, nn.InstanceNorm2d(child.num_features, affine=True))
            if isinstance(child, nn.LeakyReLU):
                setattr(parent, name, nn.ELU())


def forwards_of_their_own(net):
    """As libraries do that move weights, or add to a layer's output."""
    for module in [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU))]:
        module.forward = lambda x, forward=module.forward: 1.5 * forward(x)


@pytest.mark.parametrize("change", [add_hooks, spectral, old_weight_norm, other_layers, forwards_of_their_own])
@pytest.mark.parametrize("make, shape, fused", [NETS[1], NETS[2]])
def test_changes_after_fusing_count(change, make, shape, fused):
    net = make()
    other = fused_copy(net, fused)
    for either in (net, other):
        change(either)
    assert_same(net, other, torch.randn(shape), rtol=1e-3, atol=1e-4)
    for a, b in zip(getattr(net, "seen", ()), getattr(other, "seen", ())):
        torch.testing.assert_close(a, b)
    assert change is not add_hooks or len(net.seen) == len(other.seen) > 0


@pytest.mark.parametrize("make, shape, fused", NETS)
def test_hooks_for_all_modules(make, shape, fused):
    net = make()
    other, seen = fused_copy(net, fused), ([], [])
    for either, outputs in zip((net, other), seen):
        hook = nn.modules.module.register_module_forward_hook(lambda m, x, y, to=outputs: to.append(y.detach().clone()))
        either(torch.ones(shape))
        hook.remove()
    assert len(seen[0]) == len(seen[1]) == len(list(net.modules())) - isinstance(net, Attributes)  # its ModuleList
    for a, b in zip(*seen):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("make, shape, fused", NETS)
def test_a_graph_for_others_has_no_operators_of_ours(make, shape, fused):
    net, x = make().eval(), torch.randn(shape)
    program = torch.export.export(fused_copy(net, fused).eval(), (x,))  # torch.onnx.export makes its own of this
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets and not any("ganfast" in target for target in targets)
    torch.testing.assert_close(program.module()(x), net(x))
    assert fused_copy(net).to("meta")(x.to("meta")).shape == net(x).shape


def test_a_sequential_may_grow_shrink_and_be_cut():
    net = generator()
    fused = fused_copy(net, 3)
    for either in (net, fused):
        torch.manual_seed(1)
        either.append(nn.Conv2d(3, 2, 3))
        either.append(nn.ReLU())
        del either[4]
    x = torch.randn(2, 6, 1, 1)
    torch.testing.assert_close(net(x), fused(x))
    torch.testing.assert_close(net[:2](x), fused[:2](x))
    torch.testing.assert_close(net[0](x), fused[0](x))
    assert type(fused[:2]) is FusedSequential


def test_synchronised_batch_norm_after_fusing():
    net = generator().eval()
    fused = nn.SyncBatchNorm.convert_sync_batchnorm(fused_copy(net, 3))
    x = torch.randn(2, 6, 1, 1)
    assert isinstance(fused[1], nn.SyncBatchNorm)
    torch.testing.assert_close(net(x), fused(x))
    for either in (fused[1], fused[4]):
        either.forward = torch.zeros_like  # it is their turn, not a fused operator's
    torch.testing.assert_close(fused(x), torch.zeros(2, 3, 16, 16))


def test_torchs_errors_stay():
    fused = fused_copy(generator(), 3)
    with pytest.raises(ValueError, match="expected 4D input"):
        fused(torch.randn(6, 1, 1))
    with pytest.raises(ValueError, match=r"more than (1|one) value per channel"):
        fused_copy(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), 1)(torch.randn(1, 2, 1, 1))
