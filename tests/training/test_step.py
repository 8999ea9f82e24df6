"""One training step against the loop that everybody writes by hand, and against the figures of an earlier engine."""

import copy
import functools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from training.games import CPU, FIVE, FOUR, GAMES, Counting, images, load, make, means, play, points, table
from training.launches import Launches

from ganfast.data import Dataset, Images, Loader
from ganfast.errors import InputError
from ganfast.models import dcgan
from ganfast.recipes import RECIPES, Player

DCGAN, WGAN, GAN = RECIPES["dcgan"], RECIPES["wgan"], RECIPES["gan"]


def by_hand(recipe, generator, discriminator, reals, seed):
    """The update of pytorch/examples: D on real and detached fake, then G through D with the same fakes."""
    bce = nn.BCEWithLogitsLoss()
    opt_g = torch.optim.Adam(generator.parameters(), recipe.lr, (recipe.beta1, recipe.beta2))
    opt_d = torch.optim.Adam(discriminator.parameters(), recipe.lr, (recipe.beta1, recipe.beta2))
    noise = torch.Generator().manual_seed(seed)
    for real in reals:
        fake = generator(torch.randn(len(real), generator.latent_dim, generator=noise))
        opt_d.zero_grad()
        loss_d = bce(discriminator(real), torch.ones(len(real))) + bce(
            discriminator(fake.detach()), torch.zeros(len(real))
        )
        loss_d.backward()
        norm_d = math.sqrt(sum(p.grad.square().sum().item() for p in discriminator.parameters()))
        opt_d.step()
    opt_g.zero_grad()
    loss_g = bce(discriminator(fake), torch.ones(len(real)))
    loss_g.backward()
    norm_g = math.sqrt(sum(p.grad.square().sum().item() for p in generator.parameters()))
    opt_g.step()
    return loss_d.item(), loss_g.item(), norm_d, norm_g


@pytest.mark.parametrize("d_steps", [1, 3])
def test_equal_to_the_loop_by_hand(d_steps):
    recipe = DCGAN(width=4, latent_dim=6, d_steps=d_steps)
    step = make(recipe)
    load(step)
    theirs = copy.deepcopy(step.state.networks)
    reals = [step.state.loaders[0].batch(k)["images"] for k in range(d_steps)]
    expected = by_hand(recipe, theirs["G"], theirs["D"], reals, seed=7)
    step()
    found = means(step)
    names = "loss_d", "loss_g", "grad_norm_d", "grad_norm_g"
    assert [found[name] for name in names] == pytest.approx(expected, rel=1e-5)
    for name, network in theirs.items():
        for one, other in zip(step.state.networks[name].state_dict().values(), network.state_dict().values()):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


BEFORE = json.loads((Path(__file__).parent / "before.json").read_text())


@pytest.fixture
def nothing_measured():
    """Every machine takes the same way, and so rounds alike, however busy it is."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize("name", FIVE)
def test_the_figures_are_those_of_the_engine_before(name):
    """Of 50 steps at revision 43c0cb7, on another machine perhaps: rounding grows from step to step."""
    rows = play(make(FIVE[name]), 50)
    for step, figures in BEFORE[name]["rows"].items():
        bound = 1e-4 if int(step) <= 5 else 2e-2
        assert {key: rows[int(step) - 1][key] for key in figures} == pytest.approx(figures, rel=bound, abs=bound / 10)


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp", "wgan-gp resnet"])
def test_a_step_launches_no_more_than_that_of_the_engine_before(name):
    step = make(FIVE[name], batch=7)
    play(step, 1)
    load(step)
    with Launches() as seen:
        step()
    before = BEFORE[name]["launches"]
    assert seen.counts["convolutions"] == before["convolutions"]
    assert seen.counts["copies"] <= before["copies"] and seen.counts["others"] <= before["others"]


def test_gradients_lie_in_one_buffer_with_the_strides_of_their_parameters():
    step = make(DCGAN(width=4, latent_dim=6), place=lambda network: network.to(memory_format=torch.channels_last))
    flat, discriminator = step.state.gradients["D"], step.state.networks["D"]
    play(step, 2)
    assert flat.parameters == list(discriminator.parameters())
    for parameter in flat.parameters:
        assert parameter.grad.untyped_storage().data_ptr() == flat.buffer.untyped_storage().data_ptr()
        assert parameter.grad.stride() == parameter.stride() and parameter.grad.abs().sum() > 0
        assert parameter.grad.storage_offset() % 16 == 0
    squares = sum(p.grad.double().square().sum() for p in flat.parameters)
    assert flat.norm().item() == pytest.approx(squares.sqrt().item(), rel=1e-5)  # nothing lies between the views


@pytest.mark.parametrize("name", GAMES)
def test_an_update_makes_gradients_for_the_networks_of_its_player_alone(name, monkeypatch):
    step = make(GAMES[name])
    load(step)
    names = {id(p): each for each, network in step.state.networks.items() for p in network.parameters()}
    moving, seen = [], []
    move = step.move

    def watched(update):
        moving.append(update.player)
        return move(update)

    monkeypatch.setattr(step, "move", watched)

    def hook(of):
        return lambda gradient: seen.append((moving[-1], of))

    for network in step.state.networks.values():
        for parameter in network.parameters():
            parameter.requires_grad_(True).register_hook(hook(names[id(parameter)]))
    step()
    assert all(of in player.trains for player, of in seen)
    found = {of for _, of in seen}
    trained = {of for player in step.state.players for of in player.trains}
    assert found == trained or ("gp" in name and found == {"G"})  # its critic may fill .grad itself


class Sure(nn.Module):
    """Says real to whatever is positive; counts its calls."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return self.scale * images.flatten(1).mean(1).sign()


def test_figures_are_what_they_say(monkeypatch):
    generator, sure = dcgan.Generator(16, 1, 3, 2), Sure()
    nn.init.constant_(generator.layers[-1].conv.bias, -3.0)  # every fake is negative
    values = torch.tensor([255, 255, 255, 0], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 16, 16, 1)
    monkeypatch.setattr(DCGAN, "networks", lambda self, data: {"G": generator, "D": sure})
    step = make(DCGAN(width=2, latent_dim=3), [Dataset("signs", images=values)], 4)
    found = play(step, 1)[0]
    assert (found["accuracy_real"], found["accuracy_fake"]) == (0.75, 1.0)
    assert found["loss_d"] == pytest.approx(10 / 4, abs=1e-3) and found["loss_g"] == pytest.approx(10, abs=1e-2)
    assert sure.batches == [8, 4]  # without BatchNorm one pass over real and fake


@pytest.mark.parametrize("recipe", [DCGAN, WGAN])
def test_real_and_fake_are_merged_over_batch_norm_only_if_asked_for(recipe):
    for merge, calls in ((False, [6, 6]), (True, [12])):
        step = make(recipe(width=2, latent_dim=3, merge=merge, d_steps=1))
        seen = []
        step.state.networks["D"].register_forward_pre_hook(lambda module, args, seen=seen: seen.append(len(args[0])))
        play(step, 1)
        assert seen == [*calls, 6]  # the generator's update has fakes alone


@pytest.mark.parametrize(
    "decay, factors",
    [
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("late-linear", [1, 1, 1, 0.5]),
        ("cosine", [1, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_learning_rates_fall(decay, factors):
    step = make(DCGAN(width=2, latent_dim=3, lr=1e-3), lr_decay=decay, total=4)
    for factor in factors:
        play(step, 1)
        for optimizer in step.state.optimizers.values():
            assert optimizer.param_groups[0]["lr"].item() == pytest.approx(1e-3 * factor)


@pytest.mark.parametrize("name", [name for name in GAMES if name != "gan"])
def test_fp16_scales_its_losses_and_trains_alike(name):
    wide = play(make(GAMES[name]), 3)
    step = make(GAMES[name], precision="fp16")
    step.state.precision.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    half = play(step, 3)
    assert table(half).isfinite().all() and step.state.precision.scale == 64
    for key, value in wide[0].items():
        assert half[0][key] == pytest.approx(value, rel=0.1, abs=4e-2), key
    assert all(p.dtype == torch.float32 for net in step.state.networks.values() for p in net.parameters())


def test_an_update_that_overflows_in_fp16_is_left_out_and_the_scale_falls():
    step = make(DCGAN(width=4, latent_dim=6), precision="fp16")
    precision, discriminator = step.state.precision, step.state.networks["D"]
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = [p.clone() for p in discriminator.parameters()]
    assert table(play(step, 1)).isfinite().all() and precision.scale < 2.0**60
    assert all(torch.equal(a, b) for a, b in zip(before, discriminator.parameters()))
    precision.scaler.update(256.0)
    play(step, 1)
    assert not all(torch.equal(a, b) for a, b in zip(before, discriminator.parameters()))


@pytest.mark.slow
@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp", *FOUR, "remedied", "unrolled", "chekhov"])
def test_compiled_steps_have_the_figures_of_eager_ones(name, monkeypatch):
    """In fp64, where 20 steps differ by rounding alone; many convolutions only as far as inductor, which takes long."""
    if name not in ("dcgan", "wgan-gp", "infogan"):
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.set_default_dtype(torch.float64)
    rows = []
    try:
        eager, compiled = (make(GAMES[name], double=True) for _ in range(2))
        compiled.compile()
        for step in (compiled, eager):
            torch.manual_seed(0)  # what losses draw of torch's own generator
            rows.append(play(step, 20))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.compiler.reset()
    assert list(rows[0][-1]) == list(rows[1][-1])
    torch.testing.assert_close(*map(table, rows), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(), (5,), (1, 4)])
def test_each_process_draws_its_rows_of_what_one_draws(shape):
    whole = make(FIVE["gan"], [points()])
    drawn, classes = whole.turn.uniform(*shape), whole.turn.categorical(7)
    assert drawn.shape == (6, *shape) and drawn.min() >= 0 and drawn.max() < 1
    assert classes.dtype == torch.int64 and classes.min() >= 0 and classes.max() < 7
    for rank in range(3):
        part = make(FIVE["gan"], [points()], share=(rank, 3)).turn
        assert torch.equal(part.uniform(*shape), drawn[2 * rank :][:2])
        assert torch.equal(part.categorical(7), classes[2 * rank :][:2])


# -- games that the package does not have ------------------------------------------------------------------------------


def test_players_of_every_kind():
    Counting.seen.clear()
    step = make(Counting())
    assert step.state.loaders[0].per_step == 4  # two further updates of the critic, one of the generator
    assert list(step.state.optimizers) == ["D", "G+Q", "D+Q"]
    rates = [optimizer.param_groups[0]["lr"].item() for optimizer in step.state.optimizers.values()]
    assert rates == pytest.approx([2e-4, 1e-2, 2e-4])
    assert not any(p.requires_grad for p in step.state.networks["fixed"].parameters())
    assert not step.state.networks["fixed"].training
    fixed = [p.clone() for p in step.state.networks["fixed"].parameters()]
    rows = play(step, 5)
    order = [name for name, _ in Counting.seen]
    every = ["critic"] * 3 + ["generator"] * 2 + ["both"]
    lazy = ["critic"] * 3 + ["penalty"] + ["generator"] * 2 + ["both", "clip"]
    assert order == [*lazy, *every, *every, "clip", *every, *lazy]
    first = [x for _, x in Counting.seen[:8]]
    batches = [next(k for k in range(8) if first[k] is x) for x in first]
    assert batches == [0, 1, 2, 2, 2, 5, 5, 5]  # a player's further updates have fresh batches, a new player has not
    assert step.state.tensors["moved"] == 15 and step.state.tensors["total"].tolist() == [15, 15]
    assert (
        ["size" in row for row in rows] == ["loss_penalty" in row for row in rows] == [True, False, False, False, True]
    )
    assert all({"loss_d", "loss_g_q", "loss_both", "grad_norm_g_q"} <= row.keys() for row in rows)
    assert all(torch.equal(a, b) for a, b in zip(fixed, step.state.networks["fixed"].parameters()))
    assert max(p.abs().max() for p in step.state.networks["D"].parameters()) <= 0.05  # the fifth step has clipped


def test_means_of_figures_that_come_at_some_steps():
    Counting.seen.clear()
    step = make(Counting())
    sizes = []
    for _ in range(8):
        load(step), step()
        step.state.step += 1
        sizes.append(step.state.means.buffer.clone())
    found = means(step)
    by_step = play(make(Counting()), 8)
    for name in ("loss_d", "loss_penalty", "size"):
        values = [row[name] for row in by_step if name in row]
        assert found[name] == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.mark.parametrize(
    "players, message",
    [
        (
            lambda s: [Player(("D",), s.critic), Player(("D",), s.both)],
            "two players that are called 'd': give one a name",
        ),
        (
            lambda s: [Player(("E",), s.critic)],
            r"names a network 'E', and its networks\(\) are \['G', 'D', 'Q', 'fixed'\]",
        ),
        (lambda s: [Player((), s.critic, name="x")], "a player with a loss trains nothing"),
        (
            lambda s: [Player(("D", "Q"), s.both, s.adam(1.0)), Player(("Q", "D"), s.both, s.adam(1.0))],
            "player q_d shares the optimiser of d_q, which trains the same networks: leave out its optimizer=",
        ),
        (lambda s: [Player(("D",), s.critic, times=0)], "player d: times must be at least 1, got 0"),
    ],
)
def test_players_that_do_not_fit_are_named(players, message, monkeypatch):
    monkeypatch.setattr(Counting, "players", players)
    with pytest.raises(InputError, match=message):
        make(Counting())


@pytest.mark.parametrize(
    "loss, message",
    [
        (lambda t: t.D(t.x), r"player d: its loss has shape \(6, 1\), needs a scalar"),
        (lambda t: t.x.mean(), "player d: its loss does not depend on D, which it trains"),
    ],
)
def test_losses_that_do_not_fit_are_named(loss, message, monkeypatch):
    monkeypatch.setattr(Counting, "players", lambda self: [Player(("D",), loss)])
    with pytest.raises(InputError, match=message):
        play(make(Counting()), 1)


def test_a_state_that_a_recipe_does_not_name_is_an_error():
    step = make(Counting())
    with pytest.raises(AttributeError, match=r"state has no 'speed'.*there are \['moved', 'total'\]"):
        step.turn.state.speed = 1.0


def test_names_that_the_turn_has_are_refused(monkeypatch):
    monkeypatch.setattr(Counting, "columns", {"log": Images()})
    with pytest.raises(InputError, match="cannot call a network or column 'log'"):
        make(Counting())


def test_the_turn_forgets_what_players_left():
    step = make(FIVE["dcgan"])
    play(step, 1)
    assert not {"fake", "x"} & vars(step.turn).keys() and step.turn._figures == {}


def test_losses_may_differentiate_what_is_not_detached():
    """A fake that is not detached costs nothing and harms nothing: gradients are the player's own."""

    class Careless(DCGAN):
        def discriminator(self, t):
            t.fake = t.G(t.normal(self.latent_dim))
            return t.D(t.fake).mean() - t.D(t.x).mean()

    class Careful(DCGAN):
        def discriminator(self, t):
            t.fake = t.G(t.normal(self.latent_dim))
            return t.D(t.fake.detach()).mean() - t.D(t.x).mean()

    rows = [play(make(recipe(width=4, latent_dim=6)), 4) for recipe in (Careless, Careful)]
    torch.testing.assert_close(*map(table, rows), rtol=1e-6, atol=1e-7)


def test_only_the_columns_of_the_recipe_are_moved():
    step = make(FIVE["dcgan"], [images()])
    load(step)
    assert list(step.state.loaders[0].batch(0)) == ["images"]
    assert isinstance(step.state.loaders[0], Loader) and step.state.device == CPU
