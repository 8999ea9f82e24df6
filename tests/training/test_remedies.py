"""What the engine does for remedies: it changes gradients before an update, rates, and what discriminators see."""

import dataclasses
import functools
import json

import pytest
import torch
from training.games import SMALL, load, make, play

from ganfast import Trainer
from ganfast.errors import InputError
from ganfast.recipes import RECIPES
from ganfast.recipes.remedies import Remedies

DCGAN = RECIPES["dcgan"]


def game(name="dcgan", **remedies):
    return RECIPES[name](**SMALL, remedies=Remedies(**remedies))


def gradients_of(step, name):
    return step.state.gradients[name].buffer.clone()


def test_clipping_leaves_the_direction_and_bounds_the_norm():
    plain, clipped, loose = (make(game(clip_gradients=largest)) for largest in (0.0, 0.01, 1e6))
    for step in (plain, clipped, loose):
        load(step)
        step()
    free, held = gradients_of(plain, "D"), gradients_of(clipped, "D")
    assert free.norm() > 0.1 and held.norm() == pytest.approx(0.01, rel=1e-5)
    torch.testing.assert_close(held, free * (0.01 / free.norm()))
    torch.testing.assert_close(gradients_of(loose, "D"), free)


def test_historical_averaging_adds_the_gradient_of_its_term():
    weight = 0.3
    plain, pulled = make(game()), make(game(historical_averaging=weight))
    for step in (plain, pulled):
        play(step, 1)
    torch.testing.assert_close(gradients_of(plain, "G"), gradients_of(pulled, "G"))  # θ is its own mean at first
    for mine, theirs in zip(pulled.state.networks["D"].parameters(), plain.state.networks["D"].parameters()):
        theirs.data.copy_(mine.data)
    values = [p.detach().clone() for p in pulled.state.networks["D"].parameters()]
    means = [m.clone() for m in pulled.state.histories["D"].means]
    for step in (plain, pulled):
        load(step)
        step()
    for value, mean, without, with_it in zip(
        values, means, plain.state.gradients["D"].views, pulled.state.gradients["D"].views
    ):
        torch.testing.assert_close(with_it, without + 2 * weight * (value - (mean + value) / 2), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["dcgan", "cgan"])
def test_both_targets_are_smoothed(name):
    rows = [play(make(RECIPES[name](**SMALL, fake_target=target)), 1)[0] for target in (0.0, 0.3)]
    assert rows[0]["accuracy_fake"] == rows[1]["accuracy_fake"] and rows[0]["loss_d"] != rows[1]["loss_d"]


def test_the_discriminator_may_have_a_rate_of_its_own():
    step = make(game(lr_d=5e-3))
    rates = {name: float(each.param_groups[0]["lr"]) for name, each in step.state.optimizers.items()}
    assert rates == pytest.approx({"D": 5e-3, "G": 2e-4})


def test_noise_on_what_the_discriminator_sees_falls_to_nothing():
    seen = []
    step = make(game(instance_noise=0.5, noise_steps=4))
    step.state.networks["D"].layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    load(step)
    real = step.state.loaders[0].batch(0)["images"]
    apart = []
    for count in (0, 2, 4):
        seen.clear()
        step.state.count.fill_(count)
        step.state.networks["D"](real)
        apart.append(float((seen[0] - real).std()))
    assert apart == pytest.approx([0.5, 0.25, 0.0], rel=0.1)


def test_what_is_off_is_not_there():
    step = make(game())
    assert not any(step.changes.values()) and not step.state.histories
    assert not step.state.networks["D"]._forward_pre_hooks


@pytest.mark.parametrize(
    "name, remedies, why",
    [
        ("began", {"augment": "color"}, "recipe began has no discriminator of samples alone: leave out --augment."),
        ("began", {"lr_d": 1e-4}, "recipe began has no discriminator of samples alone: leave out --lr-d."),
        ("cgan", {"virtual_batch_norm": 4}, "recipe cgan has no generator of latents alone: leave out --virtual"),
        ("cyclegan", {"feature_matching": True}, "recipe cyclegan does not match features: leave out --feature-match"),
        ("ebgan", {"feature_matching": True}, "recipe ebgan does not match features"),
    ],
)
def test_a_remedy_that_would_do_nothing_is_refused(name, remedies, why):
    with pytest.raises(InputError, match=why):
        RECIPES[name](remedies=Remedies(**remedies))


@pytest.mark.parametrize(
    "remedies, why",
    [
        ({"clip_gradients": -1.0}, r"clip_gradients must be 0 or more, got -1.0 \(--clip-gradients\)"),
        ({"minibatch": "norm"}, "minibatch must be none or discrimination or stddev, got 'norm'"),
        ({"augment": "rotation"}, "rotation"),
        ({"noise_steps": 0}, "noise_steps must be at least 1"),
        ({"lr_d": 0.0}, "lr_d must be above 0"),
    ],
)
def test_impossible_remedies_are_named(remedies, why):
    with pytest.raises((InputError, ValueError), match=why):
        Remedies(**remedies)


@pytest.mark.parametrize(
    "recipe, data, why",
    [
        (game(augment="color"), "digits", None),
        (RECIPES["gan"](remedies=Remedies(augment="color")), "gaussians:ring8", "--augment changes images, and the"),
        (game("r3gan", virtual_batch_norm=4), "digits", r"--virtual-batch-norm cannot be had here \(network: Gen"),
        (game(virtual_batch_norm=1), "digits", r"--virtual-batch-norm cannot be had here \(reference: got batches"),
    ],
)
def test_a_remedy_that_the_networks_cannot_have_is_one_sentence(recipe, data, why, tmp_path):
    make = functools.partial(
        Trainer, recipe, data, size=16 if data == "digits" else None, batch=4, outdir=str(tmp_path)
    )
    if why is None:
        assert make().state.networks["D"]._forward_pre_hooks
        return
    with pytest.raises(InputError, match=why):
        make()


def test_a_run_keeps_its_remedies_and_refuses_others(tmp_path):
    options = {"size": 16, "batch": 4, "outdir": str(tmp_path), "steps": 2}
    remedies = Remedies(clip_gradients=1.0, virtual_batch_norm=4, spectral_norm=True, minibatch="stddev")
    run = Trainer(DCGAN(**SMALL, remedies=remedies), "digits", **options).train(progress=False)
    assert json.loads((run / "options.json").read_text())["recipe"]["clip_gradients"] == 1.0
    from ganfast import load as load_generator

    generator = load_generator(run)
    assert generator.recipe.remedies == remedies
    images = generator(torch.randn(3, 6))
    assert images.shape == (3, 1, 16, 16) and images.isfinite().all()
    with pytest.raises(InputError, match=r"was trained with --clip-gradients 1\.0, not 0\.0"):
        changed = dataclasses.replace(remedies, clip_gradients=0.0)
        Trainer(DCGAN(**SMALL, remedies=changed), "digits", resume=str(run), **options | {"steps": 4})
