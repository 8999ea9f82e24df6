"""wgan_gp_step: the merged step against the loss written out, compiled and captured."""

import pytest
import torch
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

from ganfast import penalty
from ganfast.penalty.program import program_of


def of_loss(critic, real, fake, eps, inputs=()):
    """The loss of a step in plain torch and its gradients."""
    x = between(real, fake, eps).requires_grad_()
    value, norms = double_backward(critic, x, wgan, inputs)
    wasserstein = critic(real, *inputs).mean() - critic(fake, *inputs).mean()
    loss = value - wasserstein
    return [t.detach() for t in (loss, wasserstein, value, norms.mean())], gradients(loss, critic)


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
    assert program_of(critic).flat
    real, fake, eps = samples((5, 3, 4, 4))
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
        return nn.functional.max_pool2d(h + x, 2)


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


def test_which_critics_are_merged():
    assert program_of(conv_critic()).flat
    assert not program_of(residual()).flat  # it multiplies by a parameter
    assert not program_of(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))).flat
    assert program_of(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))).mixes


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
    """fp16 rounds to 2^-11, below 6e-5 to 6e-8: gradients of 1e-5 and below lose digits, but for the scale."""
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), norm(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3, 2, 1), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(32, 1),
    )  # fmt: skip
    with torch.no_grad():
        for layer in (critic[0], critic[3], critic[6]):
            layer.weight *= 0.05
    real, fake, eps = samples((8, 3, 8, 8), torch.float32)
    scalars, wanted = of_loss(critic, real, fake, eps)
    errors = []
    for scale in (None, 4096.0):
        critic.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            step = penalty.wgan_gp_step(critic, real, fake, eps=eps, scale=scale, strict=True)
        assert distance(step, scalars) < 1e-3
        errors.append(distance([g / (scale or 1) for g in grads(critic)], wanted))
    assert errors[1] < 5e-3
    assert errors[0] > 1e-2 or norm is not nn.Identity


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


def test_a_step_wants_one_result():
    real, fake, _ = samples((5, 6), torch.float32)
    with pytest.raises(ValueError, match="critic: returned 2 tensors, needs one in a step"):
        penalty.wgan_gp_step(TwoHeads(), real, fake)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
def test_compiled_whole(layout):
    torch.manual_seed(0)
    critic = conv_critic().to(memory_format=layout)
    real, fake, eps = samples((5, 3, 8, 8), torch.float32)
    real, fake = real.to(memory_format=layout), fake.to(memory_format=layout)
    scalars, wanted = of_loss(critic, real, fake, eps)
    compiled = torch.compile(penalty.wgan_gp_step, fullgraph=True)
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


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    torch.manual_seed(0)
    critic = conv_critic(16).cuda()
    real, fake, eps = (t.cuda() for t in samples((8, 3, 8, 8), torch.float32))
    for p in critic.parameters():
        p.grad = torch.zeros_like(p)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            penalty.wgan_gp_step(critic, real, fake, eps=eps)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step = penalty.wgan_gp_step(critic, real, fake, eps=eps)
    for replay in range(2):
        real.copy_(torch.randn_like(real))
        for p in critic.parameters():
            p.grad.zero_()
        graph.replay()
        scalars, wanted = of_loss(critic, real, fake, eps)
        assert distance(step, scalars) < 1e-4, replay
        assert distance(grads(critic), wanted) < 1e-4
