"""Trainings side by side are the trainings one by one."""

import pytest
import torch
from side_by_side import Game, SideBySide
from torch import nn

from ganfast.data.gaussians import gaussians
from ganfast.models.architectures import Packed
from ganfast.objectives import discriminator_bce, generator_non_saturating, relativistic_pairing, wasserstein

SEEDS, WIDTH, BATCH, STEPS = [3, 4, 5], 16, 20, 5
GAMES = {
    "gan": Game(lr=1e-2),
    "pacgan": Game(lr=1e-2, packing=2),
    "minibatch": Game(lr=1e-2, kernels=3),
    "unrolled": Game(lr=1e-2, unroll=2),
    "wgan-gp": Game("wgan-gp", d_steps=2, penalty=10.0, lr=1e-2, beta1=0.0),
    "r3gan": Game("r3gan", penalty=1.0, lr=1e-2, beta1=0.0),
}


def slopes(d, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(d(x).sum(), x, create_graph=True)[0].norm(dim=1)


def loss_d(game, d, real, fake, mix):
    """As papers have it, with plain modules: samples [B, 2]."""
    if game.loss == "gan":
        return discriminator_bce(d(real), d(fake))
    if game.loss == "wgan-gp":
        penalty = (slopes(d, mix * real + (1 - mix) * fake) - 1).square().mean()
        return game.penalty * penalty - wasserstein(d(real), d(fake))
    penalty = slopes(d, real).square().mean() + slopes(d, fake).square().mean()
    return relativistic_pairing(d(real), d(fake)) + game.penalty / 2 * penalty


def answer(game, d, real, fake):
    """D after some plain gradient steps: a function of its samples."""
    p = dict(d.named_parameters())
    for _ in range(game.unroll):
        loss = loss_d(game, lambda x, p=p: torch.func.functional_call(d, p, (x,)), real, fake, None)
        grads = torch.autograd.grad(loss, tuple(p.values()), create_graph=True)
        p = {name: value - game.unroll_lr * grad for (name, value), grad in zip(p.items(), grads)}
    return lambda x: torch.func.functional_call(d, p, (x,))


def alone(game, points, seed, dtype):
    """One training with torch's modules: the weights of G and D."""
    g, d = (network.to(dtype) for network in game.networks(WIDTH, seed))
    d = Packed(d, game.packing)
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), game.lr, (game.beta1, game.beta2)) for n in (g, d))
    side = SideBySide(game, points, [seed], WIDTH, BATCH)  # draws the same numbers
    for _ in range(STEPS):
        for _ in range(game.d_steps):
            real, z, mix = (drawn[0].T.to(dtype) for drawn in side.draw())
            fake = g(z)
            d.zero_grad()
            loss_d(game, d, real, fake.detach(), mix).backward()
            adam_d.step()
        g.zero_grad()
        seen = answer(game, d, real, fake)
        if game.loss == "gan":
            generator_non_saturating(seen(fake)).backward()
        else:
            (relativistic_pairing(d(fake), d(real)) if game.loss == "r3gan" else -d(fake).mean()).backward()
        adam_g.step()
    return g, d.network


def together(game, points, dtype, monkeypatch):
    made = Game.networks
    monkeypatch.setattr(Game, "networks", lambda *given: tuple(n.to(dtype) for n in made(*given)))
    side = SideBySide(game, points, SEEDS, WIDTH, BATCH)
    drawn = side.draw
    monkeypatch.setattr(side, "draw", lambda: tuple(x.to(dtype) for x in drawn()))
    for _ in range(STEPS):
        side.step()
    monkeypatch.undo()
    return side


@pytest.mark.parametrize("name", GAMES)
def test_side_by_side_is_one_by_one(name, monkeypatch):
    game, points = GAMES[name], gaussians("ring8").samples
    side = together(game, points, torch.float64, monkeypatch)
    for lane, seed in enumerate(SEEDS):
        for stacked, network in zip((side.g, side.d), alone(game, points, seed, torch.float64)):
            for where, value in network.state_dict().items():
                found = {**stacked.parameters, **stacked.buffers}[where][lane]
                # worst seen 1e-13; a step of Adam is 1e-2
                assert where.endswith("num_batches_tracked") or torch.allclose(found, value, rtol=0, atol=1e-9), where


def test_in_fp32_they_differ_by_rounding(monkeypatch):
    game, points = GAMES["gan"], gaussians("ring8").samples
    side = together(game, points, torch.float32, monkeypatch)
    g, _ = alone(game, points, SEEDS[1], torch.float32)
    start, _ = game.networks(WIDTH, SEEDS[1])
    for i, layer in enumerate(g.layers):
        if isinstance(layer, nn.Linear):
            found = side.g.parameters[f"layers.{i}.weight"][1]
            moved = (layer.weight - start.layers[i].weight).abs().max()
            assert (found - layer.weight).abs().max() < 0.05 * moved  # Adam amplifies the rounding of tiny gradients


def test_samples_are_those_of_the_averaged_generators(monkeypatch):
    side = SideBySide(GAMES["gan"], gaussians("ring8").samples, SEEDS, WIDTH, BATCH)
    side.train(3)
    g, _ = GAMES["gan"].networks(WIDTH, 0)
    g.load_state_dict({k: v[1] for k, v in {**side.average.parameters, **side.average.buffers}.items()})
    z = torch.randn(2, 50, generator=torch.Generator().manual_seed(7)).T
    torch.testing.assert_close(side.samples(50, 7)[1], g.eval()(z))
