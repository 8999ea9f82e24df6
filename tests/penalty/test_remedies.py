"""The remedies of ganfast.nn in a critic: by rule, and equal to torch's double backward in fp64."""

import pytest
import torch
import torch.nn.functional as F
from penalty.truth import between, conv_critic, distance, double_backward, gradients, grads, samples, wgan
from torch import nn

from ganfast import nn as gnn
from ganfast import penalty
from ganfast.models import dcgan, mlp, resnet

SHAPE = (5, 3, 8, 8)


def hooked(module):
    critic = conv_critic()
    critic.register_forward_pre_hook(lambda _, given: module(given[0]))
    return critic


def with_reference():
    lower = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Flatten())
    return gnn.virtual_batch_norm(nn.Sequential(lower, nn.Linear(64, 1)), torch.randn(3, 3, 8, 8))


CRITICS = {
    "Augment first": lambda: nn.Sequential(gnn.Augment(), conv_critic()),
    "Augment in a hook": lambda: hooked(gnn.Augment()),
    "Augment of a residual critic": lambda: nn.Sequential(gnn.Augment(), resnet.Discriminator(16, 3, 2)),
    "InstanceNoise first": lambda: nn.Sequential(gnn.InstanceNoise(0.3), conv_critic()),
    "InstanceNoise in a hook": lambda: hooked(gnn.InstanceNoise(0.3)),
    "virtual batch norm": with_reference,
    "stddev at the head": lambda: gnn.with_minibatch_features(
        dcgan.Discriminator(16, 3, 2, batch_norm=False), "stddev"
    ),
}


def shape_of(name):
    return (5, 3, 16, 16) if "residual" in name or "head" in name else SHAPE


def seeded(call, seed=7):
    torch.manual_seed(seed)
    return call()


@pytest.mark.parametrize("name", CRITICS)
def test_no_fallback_and_the_numbers_of_double_backward(name):
    critic = CRITICS[name]().double()
    for made in critic.modules():
        if isinstance(made, gnn.MinibatchFeatures):
            nn.init.normal_(made.weight)
    real, fake, eps = samples(shape_of(name))
    said = str(penalty.explain(critic, real))
    assert "double backward" not in said and "without a rule" not in said
    x = between(real, fake, eps)

    r1 = lambda norms: 5 * norms.square()  # noqa: E731
    for mine, at, phi in (
        (lambda: penalty.r1(critic, real, strict=True), real, r1),
        (lambda: penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True), x, wgan),
    ):
        got = seeded(mine)
        wanted = seeded(lambda: double_backward(critic, at.clone().requires_grad_(), phi)[0])  # noqa: B023
        assert distance([got.detach()], [wanted.detach()]) < 1e-12
        assert distance(gradients(got, critic), gradients(wanted, critic)) < 1e-10

    def dragan():
        moved = real + 0.5 * real.std() * torch.rand_like(real)
        return double_backward(critic, between(real, moved, eps).requires_grad_(), wgan)[0]

    got, wanted = seeded(lambda: penalty.dragan(critic, real, eps=eps, strict=True)), seeded(dragan)
    assert distance(gradients(got, critic), gradients(wanted, critic)) < 1e-10

    def loss():
        wasserstein = critic(real).mean() - critic(fake).mean()
        return double_backward(critic, x.clone().requires_grad_(), wgan)[0] - wasserstein

    critic.zero_grad()
    step = seeded(lambda: penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True))
    wanted = seeded(loss)
    assert distance([step.loss], [wanted.detach()]) < 1e-12
    assert distance(grads(critic), gradients(wanted, critic)) < 1e-10


@pytest.mark.parametrize("name", ["Augment first", "InstanceNoise in a hook"])
def test_why_a_step_is_not_merged(name):
    assert "not merged" in str(penalty.explain(CRITICS[name]().double(), samples(SHAPE)[0]))


DISCRIMINATORS = {
    "conv": (conv_critic, SHAPE),
    "dcgan": (lambda: dcgan.Discriminator(16, 3, 2, batch_norm=False), (5, 3, 16, 16)),
    "resnet": (lambda: resnet.Discriminator(16, 3, 2), (5, 3, 16, 16)),
    "mlp": (lambda: mlp.Discriminator(6, 5), (5, 6)),
}


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_spectral_norm(name, training):
    """In training each call of the critic makes a power iteration; a merged step calls it once."""
    make, shape = DISCRIMINATORS[name]
    critic = gnn.spectral_norm(make().double()).train(training)
    real, fake, eps = samples(shape)
    before = {key: value.clone() for key, value in critic.state_dict().items()}

    def again(call):
        critic.load_state_dict(before)
        critic.zero_grad()
        found = call()
        return found, [b.clone() for b in critic.buffers()]

    said = str(penalty.explain(critic, real))
    assert "without a rule" not in said and not said.startswith(f"{type(critic).__name__} takes")
    at = real.clone().requires_grad_()
    got, mine = again(lambda: gradients(penalty.r1(critic, real, strict=True), critic))
    wanted, theirs = again(lambda: gradients(double_backward(critic, at, lambda n: 5 * n.square())[0], critic))
    assert distance(got, wanted) < 1e-10 and distance(mine, theirs) < 1e-12
    assert training != all(torch.equal(b, before[key]) for key, b in zip(dict(critic.named_buffers()), mine))

    def together():
        x = torch.cat([real, fake, between(real, fake, eps)]).requires_grad_()
        scores = critic(x).flatten()
        (g,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        norms = g[10:].flatten(1).norm(dim=1)
        return gradients(scores[5:10].mean() - scores[:5].mean() + wgan(norms).mean(), critic)

    def apart():
        loss = critic(fake).mean() - critic(real).mean()
        return gradients(loss + double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)[0], critic)

    def step():
        penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
        return grads(critic)

    merged = "not merged" not in said
    (got, mine), (wanted, theirs) = again(step), again(together if merged else apart)
    assert distance(got, wanted) < 1e-10 and distance(mine, theirs) < 1e-12


PLACES = torch.tensor([3, 0, 0, 2])
MASK = torch.arange(8) % 3 == 0
ROWS = torch.tensor([4, 0, 1, 1, 2])
GRID = torch.rand(5, 6, 6, 2, dtype=torch.float64) * 2.4 - 1.2
THETA = torch.randn(5, 2, 3, dtype=torch.float64)
FIXED = {
    "gather": lambda x: x.gather(3, PLACES.expand(5, 4, 8, 4)),
    "take_along_dim": lambda x: torch.take_along_dim(x, PLACES.view(1, 1, 4, 1), dim=2),
    "index_select": lambda x: x.index_select(-1, PLACES),
    "index_select of rows": lambda x: x.index_select(0, ROWS),
    "indices": lambda x: x[:, :, PLACES],
    "two indices": lambda x: x[:, :, PLACES[:, None], PLACES],
    "indices of rows": lambda x: x[ROWS],
    "mask": lambda x: x[..., MASK],
    "where": lambda x: torch.where(MASK, x, 0.5),
    "where, the other": lambda x: torch.where(MASK, 0, x),
    "masked_fill": lambda x: x.masked_fill(MASK, 0.5),
    "masked_fill_": lambda x: (2 * x).masked_fill_(MASK, -1),
    "times a mask": lambda x: x * MASK.to(x.dtype),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "grid_sample": lambda x: F.grid_sample(
        x, F.affine_grid(THETA, (5, 4, 6, 6), align_corners=False), "nearest", align_corners=False
    ),
    "grid_sample, bilinear": lambda x: F.grid_sample(x, GRID, align_corners=False),
}


class Fixed(nn.Module):
    """A linear map of fixed places between two convolutions."""

    def __init__(self, function):
        super().__init__()
        self.function, self.below = function, nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 1, 2)

    def forward(self, x):
        return self.head(self.function(self.below(x).tanh())).tanh().mean((1, 2, 3))


def by_hand(function):
    """The map as a matrix, since torch has no second derivative of grid_sample."""
    zero = torch.zeros(5, 4, 8, 8, dtype=torch.float64)
    offset = function(zero).detach()
    matrix = torch.autograd.functional.jacobian(function, zero).flatten(4).flatten(0, 3)
    return lambda x: (matrix @ x.flatten()).view_as(offset) + offset


@pytest.mark.parametrize("name", FIXED)
def test_rules_of_fixed_places(name):
    critic = Fixed(FIXED[name]).double()
    real, fake, eps = samples(SHAPE)
    assert "without a rule" not in str(penalty.explain(critic, real))
    got = gradients(penalty.gradient_penalty(critic, real, fake, eps=eps, strict=True), critic)
    step = penalty.wgan_gp_step(critic, real, fake, eps=eps, strict=True)
    mine = grads(critic)
    critic.function = by_hand(critic.function)
    found, _ = double_backward(critic, between(real, fake, eps).requires_grad_(), wgan)
    loss = found - critic(real).mean() + critic(fake).mean()
    wanted = torch.autograd.grad(found, list(critic.parameters()), retain_graph=True, allow_unused=True)
    wanted = [torch.zeros_like(g) if w is None else w for w, g in zip(wanted, got)]
    assert distance(got, wanted) < 1e-10
    assert distance([step.loss], [loss.detach()]) < 1e-12
    assert distance(mine, gradients(loss, critic)) < 1e-10
