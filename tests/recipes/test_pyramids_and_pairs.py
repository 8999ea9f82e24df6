"""LAPGAN's chain, whose levels are independent, and CoGAN's pairs and what they have in common."""

import dataclasses
import json

import pytest
import torch
from commands import small
from training.games import STEPWISE, images, load, make

import ganfast
from ganfast.cli import main
from ganfast.data import Dataset, derived
from ganfast.errors import InputError
from ganfast.metrics import lenet
from ganfast.metrics.pairs import pair_report
from ganfast.models import lapgan
from ganfast.models.pyramid import gaussian, up
from ganfast.recipes import LAPGAN, CoGAN
from ganfast.recipes.base import scores
from ganfast.recipes.remedies import Remedies
from ganfast.training import sampling

LAP, PAIR = STEPWISE["lapgan"], STEPWISE["cogan"]


def test_a_chain_adds_a_residual_to_each_enlarged_image():
    torch.manual_seed(0)
    generator = lapgan.Generator([32, 64], 3, 9, 2, 4).eval()
    z = torch.randn(5, 9)
    first, *details = z.split([5, 2, 2], 1)
    a, b, c = generator(z)
    assert [each.shape[1:] for each in (a, b, c)] == [(3, 8, 16), (3, 16, 32), (3, 32, 64)]
    assert torch.equal(a, generator.coarsest(first))
    assert torch.equal(c, up(b) + generator.residuals[1](up(b), details[1]))
    # in training each level has the real low-pass, so that its own images, taken for real ones, change nothing
    for own, again in zip((a, b, c), generator(z, [a, b, c])):
        assert torch.equal(own, again)


def test_every_number_of_z_matters():
    torch.manual_seed(0)
    generator = lapgan.Generator(16, 1, 7, 3, 4).eval()
    z = torch.randn(1, 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(generator(z)[-1].square().sum(), z)
    assert (gradient != 0).all()


def test_a_level_trains_as_if_it_were_alone():
    """Its gradients are those of its own loss."""
    step = make(LAP)
    load(step)
    generator, discriminators = step.state.networks["G"], step.state.networks["D"].levels
    reals = gaussian(torch.rand(6, 1, 16, 16) * 2 - 1, 1)
    fakes = generator(torch.randn(6, 6), reals)

    def gradients(levels):
        found = [scores(discriminators[k], reals[k], fakes[k].detach()) for k in levels]
        loss = sum(LAP.loss_d(*pair) for pair in found)
        return torch.autograd.grad(loss, [*discriminators[0].parameters()], retain_graph=True)

    for alone, together in zip(gradients([0]), gradients([0, 1])):
        assert torch.equal(alone, together)


def test_too_few_numbers_for_the_levels():
    with pytest.raises(InputError, match=r"latent_dim must be above 16, 8 for each of 2 doublings, got 10 \(--lat"):
        LAPGAN(latent_dim=10).networks({"x": images(size=32).spec("images")})


def test_half_of_a_pairs_layers_are_one():
    step = make(PAIR)
    generators, discriminators = (step.state.networks[name] for name in "GD")
    z = torch.randn(4, 6)
    discriminators.eval()
    a, b = generators.eval()(z)
    assert a.shape == b.shape and not torch.equal(a, b)
    of_a, of_b = discriminators(torch.cat([a, b])).chunk(2)
    torch.testing.assert_close(of_a, discriminators(torch.cat([a, a])).chunk(2)[0])
    torch.testing.assert_close(of_b, discriminators(torch.cat([b, b])).chunk(2)[1])
    # the loss of b alone moves what is shared, and of the private layers only b's
    of_b.sum().backward()
    moved = {name for name, p in generators.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("shared.") for name in moved) and any(name.startswith("b.") for name in moved)
    assert not any(name.startswith("a.") for name in moved)


def test_what_remedies_change_is_images_of_both_sets():
    judge = make(dataclasses.replace(PAIR, remedies=Remedies(instance_noise=0.5))).state.networks["D"]
    seen = []
    for first in (judge.a, judge.b):
        first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    judge(torch.zeros(8, 1, 16, 16))
    assert [x.shape for x in seen] == [(4, 1, 16, 16)] * 2 and all(0.4 < x.std() < 0.6 for x in seen)


def test_batches_of_the_two_sets_are_no_pairs():
    data = images()
    step = make(PAIR, [data, data])
    load(step)
    columns = [loader.batch(0)["images"] for loader in step.state.loaders]
    assert not torch.equal(*columns)


def test_agreement():
    digits = torch.zeros(3, 4, 4, 1, dtype=torch.uint8)
    for k in range(3):
        digits[k, k] = 255
    report = pair_report(digits, digits + 5 * (digits == 0).byte())
    assert report.agreement == 1 and report.unrelated == 0.5 and "100.0%" in str(report)
    assert pair_report(digits, 255 - digits).agreement == 0


def test_pairs_by_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    learn = lenet.learn
    monkeypatch.setattr(lenet, "learn", lambda net, data, rows, steps, progress: learn(net, data, rows, 5, progress))
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path / "cache"))
    data = ["--data", "digits", "--data-b", "negatives:digits", "--size", "16"]
    options = ["--width", "2", "--latent-dim", "4", "--batch", "4", "--steps", "2", "--outdir", "runs"]
    assert main(["train", "cogan", *data, *options]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["generate", "--network", str(run), "--strip", "--seeds", "0-2"]) == 0
    assert "strip.png: 3 samples" in capsys.readouterr().out
    a, b = (ganfast.load(run, domain=each) for each in "ab")
    steps = sampling.strip(a, range(3))
    assert torch.equal(steps[:, 0], sampling.sample(a, range(3)))
    assert torch.equal(steps[:, 1], sampling.sample(b, range(3)))
    assert main(["evaluate", str(run), "--samples", "20"]) == 0
    (row,) = map(json.loads, (run / "metric-pairs.jsonl").read_text().splitlines())
    assert row["samples"] == 20 and 0 <= row["agreement"] <= 1 and "pixel agreement" in capsys.readouterr().out


def test_what_makes_no_pairs_or_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = small.dcgan()
    assert main(["generate", "--network", file, "--strip"]) == 2
    assert "--strip: recipe dcgan makes its samples at once, and no pairs: leave it out" in capsys.readouterr().err
    with pytest.raises(InputError, match="recipe dcgan has no domains"):
        ganfast.load(file, domain="b")


def test_negatives():
    data = images(3)
    assert torch.equal(derived.make("negatives:", data).samples, 255 - data.samples)
    with pytest.raises(InputError, match="negatives are of images"):
        derived.make("negatives:", Dataset("points", points=torch.zeros(3, 2)))


def test_how_much_is_shared():
    data = {name: images().spec("images") for name in "ab"}
    shared = [len(CoGAN(width=2, own=own).networks(data)["G"].shared) for own in (1, 2)]
    assert shared == [2, 1]
    with pytest.raises(InputError, match=r"own must be from 1 to 2 of 3 layers, got 3 \(--own\)"):
        CoGAN(own=3).networks(data)


def test_domains():
    with pytest.raises(InputError):
        CoGAN(domain="c")
