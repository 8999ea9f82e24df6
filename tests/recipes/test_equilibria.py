"""unrolled, adagan and chekhov: what their papers' formulas say, on networks small enough to check."""

import copy
import math

import pytest
import torch
from torch import nn
from training.games import RECIPES, images, load, make, play, points
from training.tiny import weights

import ganfast
from ganfast.errors import InputError
from ganfast.models.mixture import choice, mixture
from ganfast.models.snapshots import Snapshots
from ganfast.objectives import boosting_weights, discriminator_bce, generator_minimax, generator_non_saturating, unroll

SMALL = {"width": 4, "latent_dim": 6}


def assert_equal(one, other):
    one, other = list(one), list(other)
    assert len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other))


# -- unrolled ----------------------------------------------------------------------------------------------------------


def test_unrolled_without_steps_is_the_original_game():
    for loss in ("non-saturating", "minimax"):
        plain, unrolled = (
            make(RECIPES["dcgan"](**SMALL, loss=loss)),
            make(RECIPES["unrolled"](**SMALL, unroll=0, loss=loss)),
        )
        assert play(plain, 4) == play(unrolled, 4)
        for name, network in plain.state.networks.items():
            assert_equal(network.state_dict().values(), unrolled.state.networks[name].state_dict().values())


@pytest.mark.parametrize("loss", ["non-saturating", "minimax"])
def test_the_gradient_of_the_unrolled_objective_is_the_numeric_one(loss):
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    real, noise = torch.randn(2, 7, 2, dtype=torch.float64)
    recipe = RECIPES["unrolled"](loss=loss, unroll=4, unroll_lr=0.7)

    def by_hand(scale):
        """The generator scale·noise against a copy of the critic that really takes the steps."""
        other = copy.deepcopy(critic)
        for _ in range(4):
            value = discriminator_bce(other(real), other(noise * scale))
            for p, g in zip(other.parameters(), torch.autograd.grad(value, list(other.parameters()))):
                p.data -= 0.7 * g
        fake = other(noise * scale)
        return generator_non_saturating(fake) if loss == "non-saturating" else -discriminator_bce(other(real), fake)

    class T:
        x, critic = real, None

    t = T()
    t.critic, scale = critic, torch.tensor([0.8, -1.3], dtype=torch.float64, requires_grad=True)
    t.fake = noise * scale
    value = recipe.generator(t)
    (got,) = torch.autograd.grad(value, scale)
    torch.testing.assert_close(value.detach(), by_hand(scale.detach()).detach())
    for k in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[k] = 1e-5
        high, low = by_hand(scale.detach() + shift), by_hand(scale.detach() - shift)
        assert got[k].item() == pytest.approx((high - low).item() / 2e-5, rel=1e-6)
    naive = unroll(critic, lambda c: discriminator_bce(c(real), c(t.fake.detach())), 4, 0.7)(noise * scale)
    if loss == "non-saturating":  # without the gradient through the steps it is another one
        (other,) = torch.autograd.grad(generator_non_saturating(naive), scale)
        assert not torch.allclose(other, got, rtol=1e-2)


def test_looking_ahead_leaves_the_discriminator_as_it_is():
    """BatchNorm's statistics too: they are of the discriminator's own batches alone."""
    step = make(RECIPES["unrolled"](**SMALL))
    seen = []
    own = step.losses["g"]

    def watched(t):
        before = copy.deepcopy(step.state.networks["D"].state_dict())
        value = own(t)
        seen.append(all(torch.equal(a, b) for a, b in zip(before.values(), t.critic.state_dict().values())))
        return value

    step.losses["g"] = watched
    play(step, 2)
    assert seen == [True, True] and "layers.1.bn.running_mean" in step.state.networks["D"].state_dict()


# -- adagan ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 0.5, 1 / 3, 0.05])
@pytest.mark.parametrize("count", [1, 2, 37])
def test_weights_of_boosting_are_those_of_a_search_for_the_level(beta, count):
    ratio = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64) * 4
    if count > 2:
        ratio[3:9], ratio[5] = 0, torch.inf
    low, high = 0.0, 1e3
    for _ in range(200):
        level = (low + high) / 2
        total = (level - (1 - beta) * ratio).clamp(min=0).mean() if beta < 1 else level
        low, high = (level, high) if total < beta else (low, level)
    if beta == 1:
        ratio = ratio.nan_to_num(posinf=1e9)
        expected = torch.ones(count, dtype=torch.float64)
    else:
        expected = (level - (1 - beta) * ratio).clamp(min=0) / beta
    found = boosting_weights(ratio, beta)
    torch.testing.assert_close(found, expected)
    assert found.mean().item() == pytest.approx(1) and (found >= 0).all()
    torch.testing.assert_close(boosting_weights(ratio[:1], beta, ratio), found[:1])


def test_boosting_on_a_known_mixture_learns_what_is_missing():
    """Data of three equal modes; the mixture so far has two of them: a half share leaves the third and tops up none."""
    shares = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64) * 3  # p_mixture/p_data
    weighted = boosting_weights(shares.repeat_interleave(100), 1 / 3).view(3, 100).mean(1) / 3
    torch.testing.assert_close(2 / 3 * shares / 3 + weighted / 3, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_mixture_has_equal_shares_of_its_generators():
    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, z):
            return torch.full((len(z), 1, 2, 2), self.value) + 0 * z.sum()

    z = torch.randn(30_000, 4, generator=torch.Generator().manual_seed(0))
    made = mixture([Constant(float(k)) for k in range(5)], z)
    assert made.shape == (30_000, 1, 2, 2)
    assert torch.bincount(made[:, 0, 0, 0].long()).div(30_000).tolist() == pytest.approx([0.2] * 5, abs=0.01)
    assert torch.equal(made[:, 0, 0, 0].long(), choice(z[:, -1], 5))
    assert choice(torch.tensor([-40.0, 40.0]), 3).tolist() == [0, 2]


def test_adagan_trains_one_generator_after_the_other(tmp_path):
    recipe = RECIPES["adagan"](**SMALL, components=3, lr=1e-2)
    trainer = ganfast.Trainer(recipe, images(), batch=4, steps=31, outdir=str(tmp_path), log_every=1)
    assert [stage.steps for stage in trainer.stages] == [11, 2, 8, 2, 8]
    begin, nets = trainer.begin_stage, {}

    def watched(stage):
        nets[stage] = copy.deepcopy((trainer.state.networks, trainer.state.averages))
        begin(stage)

    trainer.begin_stage = watched
    run = trainer.train(progress=False)
    networks, averages = trainer.state.networks, trainer.state.averages
    assert list(networks) == ["G_1", "G_2", "G_3", "M", "D_3"] and list(averages) == ["G_1", "G_2", "G_3"]
    for name, stage in (("G_1", 1), ("G_2", 3)):  # as they were shown when they were ready, and no longer trained
        shown = nets[stage][1][name].state_dict().values()
        assert_equal(shown, networks[name].state_dict().values())
        for one, other in zip(shown, averages[name].state_dict().values()):
            torch.testing.assert_close(one, other)
    assert list(nets[2][0]) == ["G_1", "M"] and list(nets[4][0]) == ["G_1", "G_2", "M"]
    loaded = ganfast.load(run)
    z = torch.randn(64, 6)
    for k, name in enumerate(averages):
        own = choice(z[:, -1], 3) == k
        assert own.any()
        torch.testing.assert_close(loaded(z)[own], averages[name](z[own, :-1]).detach(), rtol=1e-4, atol=1e-5)


def test_weights_of_the_data_are_in_the_discriminators_loss():
    """A judge that says how much is covered already moves the loss as a batch drawn by the weights would."""
    recipe = RECIPES["adagan"](**SMALL).stages(30)[2].game
    step = make(recipe, [points()])
    with torch.no_grad():
        for p in (*step.state.networks["M"].parameters(), *step.state.networks["D_2"].parameters()):
            p.mul_(20)  # scores that differ
    load(step)
    t = step.turn
    step.show(0)
    torch.manual_seed(3)
    t.normal = lambda n: torch.ones(6, n)
    loss = recipe.discriminator(t)
    weights = boosting_weights((-t.M(t.x)).exp(), 0.5)
    assert weights.std() > 0.05
    real, fake = t.D_2(t.x), t.D_2(t.fake)
    drawn = torch.multinomial(weights, 500_000, replacement=True)
    torch.testing.assert_close(loss, discriminator_bce(real[drawn], fake), rtol=3e-3, atol=0)
    assert (loss - discriminator_bce(real, fake)).abs() > 0.01


@pytest.mark.parametrize("name", ["adagan", "chekhov", "unrolled"])
def test_runs_go_on_as_if_never_stopped(name, tmp_path):
    """Stopped in the midst, where adagan is in its last stage but one."""
    recipe = RECIPES[name](**SMALL)
    options = {"batch": 8, "checkpoint_every": 9, "log_every": 3, "keep": 9}
    whole = ganfast.Trainer(recipe, points(), steps=14, outdir=str(tmp_path / "whole"), **options)
    run = whole.train(progress=False)
    other = ganfast.Trainer(recipe, points(), steps=14, outdir=str(tmp_path / "parts"), **options,
                            resume=str(run / "checkpoint-000009"))  # fmt: skip
    assert other.step == 9
    other.train(progress=False)
    assert_equal(weights(whole), weights(other))
    assert_equal(whole.state.tensors.values(), other.state.tensors.values())


# -- chekhov -----------------------------------------------------------------------------------------------------------


def test_snapshots_are_stored_further_and_further_apart():
    recipe = RECIPES["chekhov"](**SMALL, states=2, spacing=2, growth=1)
    step = make(recipe, [points()])
    history = []
    for _ in range(14):
        play(step, 1)
        history.append(copy.deepcopy((step.state.networks["G"].state_dict(), step.state.networks["D"].state_dict())))
        moments = {1, 4, 8, 13} & set(range(len(history)))  # after steps 2, 5, 9 and 14
        for which, name in enumerate("GD"):
            copies = [each.state_dict() for each in step.state.networks[f"past_{name}"].copies]
            for place in range(2):
                last = [m for m in sorted(moments) if sorted({1, 4, 8, 13}).index(m) % 2 == place]
                if last:
                    assert_equal(copies[place].values(), history[last[-1]][which].values())
    assert step.state.tensors["stored"] == 4 and step.state.tensors["step"] == 15


def test_losses_are_means_over_the_states_that_are_stored():
    recipe = RECIPES["chekhov"](**SMALL, states=3, decay=0.25)
    step = make(recipe, [points()])
    nets, t = step.state.networks, step.turn
    for which, (g, d) in enumerate(zip(nets["past_G"].copies, nets["past_D"].copies)):
        with torch.no_grad():
            for p in (*g.parameters(), *d.parameters()):
                p.add_(0.1 * (which + 1) * torch.randn(p.shape))
    load(step), step.show(0)
    z = torch.randn(6, 6)
    t.normal = lambda n: z
    for stored in (0, 2, 7):
        t.state.stored, t.state.step = float(stored), 4.0
        squares = {name: sum(p.square().sum() for p in nets[name].parameters()) * 0.25 / 2 for name in "GD"}
        loss = recipe.discriminator(t)
        generators = [nets["G"], *nets["past_G"].copies[: min(stored, 3)]]
        expected = torch.stack([discriminator_bce(nets["D"](t.x), nets["D"](g(z))) for g in generators]).mean()
        torch.testing.assert_close(loss, expected + squares["D"])
        critics = [nets["D"], *nets["past_D"].copies[: min(stored, 3)]]
        expected = torch.stack([generator_non_saturating(d(t.fake)) for d in critics]).mean()
        torch.testing.assert_close(recipe.generator(t), expected + squares["G"])


def test_snapshots_do_not_learn_and_do_not_move_their_statistics():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    kept = Snapshots(network, 2)
    before = copy.deepcopy(kept.state_dict())
    x = torch.randn(5, 2, requires_grad=True)
    kept(x).sum().backward()
    assert x.grad is not None and not any(p.requires_grad for p in kept.parameters())
    assert_equal(before.values(), kept.state_dict().values())


# -- all ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, fields",
    [
        ("unrolled", {"unroll": -1}),
        ("unrolled", {"unroll_lr": 0.0}),
        ("adagan", {"components": 0}),
        ("adagan", {"latent_dim": 1}),
        ("chekhov", {"states": 0}),
        ("chekhov", {"spacing": 0}),
        ("chekhov", {"growth": -1}),
        ("chekhov", {"decay": -0.1}),
    ],
)
def test_impossible_fields_are_named(name, fields):
    (field,) = fields
    with pytest.raises(InputError, match=rf"^{field} must .* \(--{field.replace('_', '-')}\)"):
        RECIPES[name](**fields)


# -- many paths to equilibrium -----------------------------------------------------------------------------------------


STD = 0.1


def jensen_shannon(distance: float, std: float) -> float:
    """Of N(0, std²) and N(distance, std²) on a line, in nats, by quadrature."""
    x = torch.linspace(-8 * std, distance + 8 * std, 200_001, dtype=torch.float64)
    normal = torch.distributions.Normal
    logs = torch.stack([normal(float(m), std).log_prob(x) for m in (0, distance)])
    middle = logs.logsumexp(0) - math.log(2)
    return 0.5 * sum(torch.trapezoid(each.exp() * (each - middle), x) for each in logs).item()


def play_on_a_line(name, start, steps=200, **fields):
    """The mean m of a generator z·STD + m that a recipe trains on data N(0, STD²), after each step."""

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.tensor([start]))

        def forward(self, z):
            return z[:, :1] * STD + self.mean

    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1), nn.Flatten(0))
    recipe = RECIPES[name](latent_dim=1, **fields)
    generator, t = Line(), Turn()
    t.G, t.D = generator, critic
    players = recipe.players()
    optimizers = [torch.optim.Adam(net.parameters(), 2e-2, betas=(0.0, 0.9)) for net in (critic, generator)]
    means = []
    for _ in range(steps):
        t.x = torch.randn(64, 1) * STD
        for player, optimizer in zip(players, optimizers):
            optimizer.zero_grad()
            player.loss(t).backward()
            optimizer.step()
        means.append(generator.mean.item())
    return means


class Turn:
    """As much of ``t`` as two players need."""

    def normal(self, n):
        return torch.randn(64, n)

    def uniform(self):
        return torch.rand(64)

    def log(self, **figures):
        pass


@pytest.mark.parametrize(
    "name, fields",
    [
        ("dcgan", {}),
        ("ns-gp", {"penalty_weight": 0.05}),  # 10, on a line, keeps a slope from turning round: that leads through 0
    ],
)
def test_games_find_data_that_their_divergence_does_not_see(name, fields):
    """Fedus et al. 2018, section 3: supports that do not meet, so that no divergence falls on the way."""
    seen = [jensen_shannon(distance, STD) for distance in (0.0, 0.2, 1.0, 1.5, 2.0)]
    assert seen[0] == pytest.approx(0, abs=1e-9) and 0.1 < seen[1] < 0.6
    assert all(math.log(2) - value < 1e-5 for value in seen[2:])  # constant: its gradient is 0
    means = play_on_a_line(name, 2.0, **fields)
    assert means[0] > 1.9 and max(abs(mean) for mean in means[-50:]) < 0.5


def test_the_best_discriminator_gives_the_minimax_loss_no_gradient_there():
    """D* = p/(p + q) of the two Gaussians, in closed form, as a divergence has it; the other loss still moves."""
    for distance, gone in ((0.1, False), (1.0, True), (4.0, True)):
        mean = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
        fake = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * STD + mean
        logits = (-(fake.square()) + (fake - distance).square()) / (2 * STD**2)  # log p − log q at a fixed q
        slopes = [torch.autograd.grad(loss(logits), mean, retain_graph=True)[0].abs()
                  for loss in (generator_minimax, generator_non_saturating)]  # fmt: skip
        assert (slopes[0] < 1e-8) == gone and slopes[1] > 0.1
