"""wgan_gp_step: the merged step against the loss written out, compiled and captured."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from graphed import captured
from penalty.truth import (
    CRITICS,
    TwoHeads,
    between,
    conv_critic,
    distance,
    double_backward,
    gradients,
    grads,
    residual,
    samples,
    wgan,
)  # fmt: skip
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ganfast import nn as gnn
from ganfast import penalty
from ganfast.penalty.forward import forward
from ganfast.penalty.rules import NotMergedError


def of_loss(critic, real, fake, eps, inputs=(), of=None):
    """The loss of a step in plain torch and its gradients; ``of``: whose, where the critic is a function."""
    x = between(real, fake, eps).requires_grad_()
    value, norms = double_backward(critic, x, wgan, inputs)
    wasserstein = critic(real, *inputs).mean() - critic(fake, *inputs).mean()
    loss = value - wasserstein
    return [t.detach() for t in (loss, wasserstein, value, norms.mean())], gradients(loss, of or critic)


@pytest.mark.parametrize("name", CRITICS)
def test_equals_the_loss(name):
    torch.manual_seed(0)
    critic, shape, inputs = CRITICS[name]()
    critic = critic.double()
    real, fake, eps = samples(shape)
    scalars, wanted = of_loss(critic, real, fake, eps, inputs)
    step = penalty.wgan_gp_step(critic, real, fake, eps=eps, inputs=inputs, strict=True)
    assert not any(s.requires_grad for s in step)
    assert distance(step, scalars) < 1e-10
    assert distance(grads(critic), wanted) < 1e-10
    penalty.wgan_gp_step(critic, real, fake, eps=eps, inputs=inputs)
    assert distance(grads(critic), [2 * w for w in wanted]) < 1e-10


@pytest.mark.parametrize("layers", [2, 3], ids=["shared twice", "shared thrice"])
def test_shared_modules(layers):
    torch.manual_seed(0)
    shared = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.2))
    critic = nn.Sequential(nn.Conv2d(3, 4, 1), *[shared] * layers, nn.Flatten(), nn.Linear(64, 1)).double()
    real, fake, eps = samples((5, 3, 4, 4))
    assert merged(critic, real).flat
    _, wanted = of_loss(critic, real, fake, eps)
    penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance(grads(critic), wanted) < 1e-10


class FlatResidual(nn.Module):
    """Piecewise linear, with an input read three times and outputs in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.act, self.inplace, self.drop = nn.LeakyReLU(0.2), nn.ReLU(inplace=True), nn.Dropout(0.0)

    def forward(self, x):
        h = self.act(x)
        h = self.drop(self.inplace(self.b(self.inplace(self.a(h))))) + self.c(x)
        return F.max_pool2d(h + x, 2)


def test_merged_residual_networks():
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 1), FlatResidual(), nn.AvgPool2d(2), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(16, 1)
    )
    critic = critic.double()
    real, fake, eps = samples((5, 3, 8, 8))
    _, wanted = of_loss(critic, real, fake, eps)
    penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance(grads(critic), wanted) < 1e-10


def merged(critic, x):
    """The tape of three batches like x as one."""
    return forward(critic, torch.cat([x] * 3), start=2 * len(x))[0]


def test_which_critics_are_merged():
    images, rows = torch.randn(5, 3, 8, 8), torch.randn(5, 6)
    assert merged(conv_critic(), images).flat
    for critic, x in (
        (residual(), images), (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)), rows),
        (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)), rows),
    ):  # fmt: skip
        assert not merged(critic, x).flat
    for layer in (nn.PReLU(), nn.BatchNorm1d(8, momentum=None), gnn.MinibatchDiscrimination(8, 8, 2)):
        with pytest.raises(NotMergedError):
            merged(nn.Sequential(nn.Linear(6, 8), layer, nn.LazyLinear(1)), rows)


class Convolutions(TorchDispatchMode):
    """Counts multiplications of convolutions: forward, data gradient and weight gradient have as many each."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        y = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution.default:
            self.count += y.numel() * args[1][0].numel()
        elif function is torch.ops.aten.convolution_backward.default:
            self.count += args[0].numel() * args[2][0].numel() * sum(args[-1][:2])
        return y


def units_of_a_layer(update, top):
    """What one more inner layer costs, in passes of the batch."""
    found = []
    for layers in (2, 3):
        inner = [layer for _ in range(layers) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.2))]
        critic = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU(0.2), *inner, top(), nn.Flatten(), nn.Linear(64, 1))
        update(critic, *samples((5, 3, 4, 4), torch.float32))  # the first call tries the ways
        with Convolutions() as counted:
            update(critic, *samples((5, 3, 4, 4), torch.float32))
        found.append(counted.count)
    return (found[1] - found[0]) / (5 * 4 * 4 * 4 * 4 * 9)


def by_double_backward(critic, real, fake, eps):
    value, _ = double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)
    (value + critic(fake).mean() - critic(real).mean()).backward()


@pytest.mark.parametrize("top, ours", [(nn.Identity, 10), (nn.Tanh, 12)])
def test_the_cost_in_convolutions(top, ours):
    """The table of docs/gradient_penalty.md."""
    assert units_of_a_layer(by_double_backward, top) == 12
    assert units_of_a_layer(by_step, top) == ours
    assert units_of_a_layer(by_penalty, top) == ours


class Sizes(nn.Module):
    """The batch's size, as people use it: in a shape, or in a mean of their own."""

    def __init__(self, use):
        super().__init__()
        self.conv, self.head, self.use = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(64, 1), use

    def forward(self, x):
        h = F.leaky_relu(self.conv(x), 0.2)
        return self.head(self.use(h))


USES = {
    "size": (lambda h: h.view(h.size(0), -1), True), "shape": (lambda h: h.reshape(h.shape[0], 64), True),
    "numel": (lambda h: h.view(-1, h.numel() // h.shape[0]), False), "flatten": (lambda h: h.flatten(1), True),
    "mean": (lambda h: h.view(-1, 64) / h.size(0), False),
    "zeros": (lambda h: h.flatten(1) + h.new_ones(h.size(0), 64), True),
    "dtype": (lambda h: h.flatten(1).to(h.dtype), True),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_a_size_may_say_a_shape(use):
    torch.manual_seed(0)
    function, merges = USES[use]
    critic = Sizes(function).double()
    real, fake, eps = samples((5, 3, 8, 8))
    with contextlib.nullcontext() if merges else pytest.raises(NotMergedError):
        merged(critic, real)
    scalars, wanted = of_loss(critic, real, fake, eps)
    step = penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance(step, scalars) < 1e-10
    assert distance(grads(critic), wanted) < 1e-10


class CurvedResidual(nn.Module):
    """Layers that bend in one branch of three, in the other none; norms of all kinds."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.a, self.b = norm, nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        h = self.b(F.leaky_relu(self.a(F.silu(self.norm(x))), 0.2))
        return F.avg_pool2d(x + h, 2) + 0.5 * F.max_pool2d(F.relu(h), 2)


NORMS = {
    "LayerNorm": lambda: nn.LayerNorm([4, 8, 8]), "LayerNorm of the last": lambda: nn.LayerNorm([8, 8]),
    "LayerNorm without shift": lambda: nn.LayerNorm([4, 8, 8], bias=False),
    "LayerNorm without weights": lambda: nn.LayerNorm([4, 8, 8], elementwise_affine=False),
    "GroupNorm": lambda: nn.GroupNorm(2, 4), "GroupNorm of one": lambda: nn.GroupNorm(1, 4),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True),
}  # fmt: skip


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "partly frozen"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("norm", NORMS)
def test_merged_curved_networks(norm, layout, frozen):
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), CurvedResidual(NORMS[norm]()), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(64, 1)
    )
    critic = critic.double().to(memory_format=layout)
    with torch.no_grad():
        for p in critic.parameters():
            p.add_(0.3 * torch.randn_like(p))
            p.requires_grad_(not frozen or p.dim() in (1, 4))
    real, fake, eps = samples((5, 3, 8, 8))
    real, fake = real.to(memory_format=layout), fake.to(memory_format=layout)
    scalars, wanted = of_loss(critic, real, fake, eps)
    step = penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance(step, scalars) < 1e-10
    assert distance(grads(critic), wanted) < 1e-10
    assert all(p.grad.stride() == p.stride() for p in critic.parameters() if p.grad is not None)


def test_batch_norm_sees_real_fake_and_between_apart():
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).double()  # noqa: E731
    critic, other = make(), make()
    other.load_state_dict(critic.state_dict())
    real, fake, eps = samples((5, 6))
    x = between(real, fake, eps).requires_grad_()
    wasserstein = other(real).mean() - other(fake).mean()
    wanted = gradients(double_backward(other, x, wgan)[0] - wasserstein, other)
    penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance(grads(critic), wanted) < 1e-10
    assert (
        distance([critic[1].running_mean, critic[1].running_var], [other[1].running_mean, other[1].running_var]) < 1e-12
    )
    assert int(critic[1].num_batches_tracked) == 3


def test_frozen_parameters_stay_without_gradients():
    torch.manual_seed(0)
    critic = conv_critic().double()
    critic[2].weight.requires_grad_(False)
    critic[0].bias.requires_grad_(False)
    real, fake, eps = samples((5, 3, 8, 8))
    real.requires_grad_()
    _, wanted = of_loss(critic, real, fake, eps)
    penalty.wgan_gp_step(critic, real, fake, eps=eps)
    assert critic[2].weight.grad is None and critic[0].bias.grad is None and real.grad is None
    assert distance(grads(critic), wanted) < 1e-10


def test_the_step_leaves_its_arguments_alone():
    critic = conv_critic()
    real, fake, eps = samples((5, 3, 8, 8), torch.float32)
    before = [t.clone() for t in (real, fake, eps, *critic.state_dict().values())]
    penalty.wgan_gp_step(critic, real, fake, eps=eps)
    assert all(torch.equal(a, b) for a, b in zip(before, (real, fake, eps, *critic.state_dict().values())))


@pytest.mark.parametrize(
    "name", ["conv", "residual, normalised", "conditional", "MinibatchDiscrimination", "weight norm"]
)
@pytest.mark.parametrize("scale", [1024.0, torch.tensor(512.0)], ids=["number", "tensor"])
def test_scale_multiplies_gradients_alone(name, scale):
    torch.manual_seed(0)
    critic, shape, inputs = CRITICS[name]()
    critic = critic.double()
    real, fake, eps = samples(shape)
    scalars, wanted = of_loss(critic, real, fake, eps, inputs)
    step = penalty.wgan_gp_step(critic, real, fake, eps=eps, inputs=inputs, scale=scale, strict=True)
    assert distance(step, scalars) < 1e-10
    assert distance(grads(critic), [float(scale) * w for w in wanted]) < 1e-10


@pytest.mark.parametrize("norm", [nn.Identity, lambda f: nn.GroupNorm(1, f)], ids=["merged", "normalised"])
def test_a_scale_keeps_small_gradients_in_fp16(norm):
    """fp16 rounds what is below 2^-25 to 0: of 1 at the top, two weights of 2^-13 leave none below but for a scale."""
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), norm(8), nn.LeakyReLU(0.5), nn.Flatten(),
        nn.Linear(128, 1), nn.LeakyReLU(0.5), nn.Linear(1, 1),
    )  # fmt: skip
    with torch.no_grad():
        for layer in critic[4], critic[6]:
            layer.weight.copy_(layer.weight.sign() * 2**-13)
    real, fake, eps = samples((64, 3, 8, 8), torch.float32)
    scalars, wanted = of_loss(critic, real, fake, eps)
    below = len(list(critic[:4].parameters()))
    for scale in (None, 2.0**20):
        critic.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            step = penalty.wgan_gp_step(critic, real, fake, eps=eps, scale=scale, strict=True)
        assert distance(step, scalars) < 1e-3
        found = [g / (scale or 1) for g in grads(critic)]
        assert scale or not any(g.any() for g in found[:below])
    assert distance(found[:below], wanted[:below]) < 1e-2  # 2^-16 has 9 bits in fp16
    assert distance(found[below:], wanted[below:]) < 5e-3


def batch_normalised():
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.GELU(),
        nn.Flatten(), nn.Linear(64, 1),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize(
    ("make", "scale"),
    [(lambda: conv_critic(16), 65536.0), (lambda: normalised_critic(), 4096.0), (residual, 4096.0),
     (batch_normalised, 4096.0)],
    ids=["flat", "normalised", "residual", "BatchNorm"],
)  # fmt: skip
def test_half_precision_as_users_run_it(make, scale, dtype):
    """Nothing overflows at GradScaler's first scale, or where curvature makes numbers larger (torch's own do before),
    a sixteenth of it; the gradients are as long as fp32's to 2 %."""
    torch.manual_seed(0)
    critic = make()
    real, fake, eps = samples((16, 3, 8, 8), torch.float32)
    penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    wanted = torch.cat([g.flatten() for g in grads(critic)])
    critic.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        penalty.wgan_gp_step(critic, real, fake, eps=eps, scale=scale, strict=True)
    found = torch.cat([g.flatten() for g in grads(critic)]) / scale
    assert bool(found.isfinite().all())
    assert abs(float(found.norm() / wanted.norm()) - 1) < 0.02


def test_what_is_no_scale():
    critic = conv_critic()
    real, fake, _ = samples((5, 3, 8, 8), torch.float32)
    for scale, reason in (
        (0, "scale: got 0, needs a number above 0"), (float("inf"), "scale: got inf, needs a finite number"),
        (torch.ones(2), r"scale: got a tensor of shape \(2,\).*needs one floating-point number, shape \(\), on cpu"),
        (torch.tensor(2), "scale: got a tensor of shape .*int64"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            penalty.wgan_gp_step(critic, real, fake, scale=scale)
    with pytest.raises(TypeError, match="scale: got str, needs a number"):
        penalty.wgan_gp_step(critic, real, fake, scale="2")


def test_the_first_of_several_results_is_the_scores():
    torch.manual_seed(0)
    critic = TwoHeads().double()
    real, fake, eps = samples((5, 6))
    _, wanted = of_loss(lambda x: critic(x)[0], real, fake, eps, of=critic)
    penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance(grads(critic), wanted) < 1e-10


def normalised_critic():
    return nn.Sequential(
        nn.Conv2d(3, 6, 4, 2, 1), nn.LayerNorm([6, 4, 4]), nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3, 2, 1),
        nn.GroupNorm(2, 6), nn.SiLU(), nn.Flatten(), nn.Linear(24, 1),
    )  # fmt: skip


@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize(
    ("make", "layout", "backend"),
    [
        (conv_critic, torch.channels_last, "inductor"),
        (conv_critic, torch.contiguous_format, "aot_eager"),
        (normalised_critic, torch.channels_last, "aot_eager"),
        (normalised_critic, torch.contiguous_format, "aot_eager"),
    ],
)
def test_compiled_whole(make, layout, backend):
    """Inductor's code takes long to compile, for what is curved minutes: there the graph alone is tested."""
    torch.manual_seed(0)
    critic = make().to(memory_format=layout)
    real, fake, eps = samples((5, 3, 8, 8), torch.float32)
    real, fake = real.to(memory_format=layout), fake.to(memory_format=layout)
    scalars, wanted = of_loss(critic, real, fake, eps)
    compiled = torch.compile(penalty.wgan_gp_step, fullgraph=True, backend=backend)
    step = compiled(critic, real, fake, eps=eps, scale=torch.tensor(8.0))
    assert distance(step, scalars) < 1e-5
    assert distance(grads(critic), [8 * w for w in wanted]) < 1e-5


@pytest.mark.parametrize("name", ["residual, normalised", "LayerNorm", "conditional"])
def test_what_the_compiler_cannot_take_runs_beside_it(name):
    torch.manual_seed(0)
    critic, shape, inputs = CRITICS[name]()
    real, fake, eps = samples(shape, torch.float32)
    scalars, wanted = of_loss(critic, real, fake, eps, inputs)
    compiled = torch.compile(penalty.wgan_gp_step, backend="aot_eager")
    step = compiled(critic, real, fake, eps=eps, inputs=inputs, strict=True)
    assert distance(step, scalars) < 1e-5
    assert distance(grads(critic), wanted) < 1e-5


def by_step(critic, real, fake, eps):
    return penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)


def by_penalty(critic, real, fake, eps):
    value = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
    wasserstein = critic(real).mean() - critic(fake).mean()
    loss = value - wasserstein
    loss.backward()
    return loss.detach(), wasserstein.detach(), value.detach()


@pytest.mark.parametrize(
    "make", [lambda: conv_critic(16), normalised_critic, residual], ids=["flat", "curved", "parts"]
)
@pytest.mark.parametrize("update", [by_step, by_penalty])
def test_captured_in_a_cuda_graph(update, make, graph_device):
    """Each replay has the gradients of what its inputs hold then, added to what ``.grad`` holds."""
    torch.manual_seed(0)
    critic = make().to(graph_device)
    real, fake, eps = (t.to(graph_device) for t in samples((8, 3, 8, 8), torch.float32))
    for p in critic.parameters():
        p.grad = torch.zeros_like(p)
    _, replay = captured(lambda: update(critic, real, fake, eps))
    for turn in range(2):
        for t in (real, fake):
            t.copy_(torch.randn_like(t))
        eps.copy_(torch.rand_like(eps))
        for p in critic.parameters():
            p.grad.zero_()
        found = replay()
        mine = [g.clone() for g in grads(critic)]
        scalars, wanted = of_loss(critic, real, fake, eps)
        assert distance(found, scalars[: len(found)]) < 1e-4, turn
        assert distance(mine, wanted) < 1e-4, turn


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_on_a_gpu(norm, layout):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), CurvedResidual(NORMS[norm]()), nn.Flatten(), nn.Linear(64, 1)]
    critic = nn.Sequential(*layers).double().cuda().to(memory_format=layout)
    real, fake, eps = (t.cuda() for t in samples((5, 3, 8, 8)))
    real, fake = real.to(memory_format=layout), fake.to(memory_format=layout)
    _, wanted = of_loss(critic, real, fake, eps)
    penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    assert distance(grads(critic), wanted) < 1e-10
    penalised = double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)[0]
    mine = penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True)
    assert distance(gradients(mine, critic), gradients(penalised, critic)) < 1e-10


def test_captured_with_a_scale_on_the_device_and_its_own_epsilon(graph_device):
    torch.manual_seed(0)
    critic = normalised_critic().to(graph_device)
    real, fake, _ = (t.to(graph_device) for t in samples((8, 3, 8, 8), torch.float32))
    scale = torch.tensor(4.0, device=graph_device)
    for p in critic.parameters():
        p.grad = torch.zeros_like(p)
    _, replay = captured(lambda: penalty.wgan_gp_step(critic, real, fake, scale=scale))
    values, sizes = [], []
    for factor in (1.0, 1.0, 256.0):
        scale.fill_(factor)
        for p in critic.parameters():
            p.grad.zero_()
        values.append(float(penalty.WGANGPStep(*replay()).penalty))
        sizes.append(float(torch.cat([g.flatten() for g in grads(critic)]).norm()))
    assert values[0] != values[1]  # ε is drawn anew
    assert 100 < sizes[2] / sizes[1] < 600
