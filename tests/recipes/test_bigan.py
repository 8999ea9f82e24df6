"""BiGAN and ALI: pairs of samples and codes; how their codes represent data."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training.games import CODES, SMALL, images, load, make, points

from ganfast.cli import main
from ganfast.data import Dataset, Spec
from ganfast.recipes import ALI, RECIPES, BiGAN, Trained
from ganfast.training import representing

SHAPES = {"x": Spec("images", (1, 16, 16))}


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "resnet"])
@pytest.mark.parametrize("name, numbers", [("bigan", 6), ("ali", 12)])
def test_the_networks_of_each_architecture(name, numbers, architecture):
    networks = RECIPES[name](**SMALL, architecture=architecture).build(SHAPES)
    x = torch.rand(3, 1, 16, 16)
    assert networks["G"](torch.randn(3, 6)).shape == x.shape and networks["E"](x).shape == (3, numbers)
    assert networks["D"](x, torch.randn(3, 6)).shape == (3,)


def test_fully_connected_layers_have_the_papers_1024_units():
    networks = BiGAN().build({"x": Spec("images", (1, 32, 32))})
    for name in ("G", "E"):
        assert {layer.num_features for layer in networks[name].modules() if hasattr(layer, "num_features")} == {1024}
    assert (BiGAN().latent_dim, BiGAN().lr, BiGAN().beta1, BiGAN().batch) == (50, 2e-4, 0.5, 128)


def test_bigans_codes_are_uniform_and_alis_normal():
    z = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    codes = BiGAN().code_of(z)
    assert torch.histc(codes, 4, -1, 1).div(len(z)).sub(0.25).abs().max() < 0.02 and codes.abs().max() <= 1
    assert torch.equal(ALI().code_of(z), z)


def trained(recipe, data) -> Trained:
    torch.manual_seed(0)
    specs = {"x": data.spec(next(iter(data.columns)))}
    networks = recipe.build(specs)
    return Trained(recipe, specs, {name: networks[name] for name in recipe.averaged}).eval()


def test_what_is_decoded_is_what_is_sampled_and_a_reconstruction_is_of_its_code():
    for name, recipe in CODES.items():
        data = points() if name == "bigan" else images()
        found = trained(recipe, data)
        z, x = torch.randn(4, 6), torch.rand(4, *data.shape)
        assert torch.equal(found.decode(recipe.code_of(z)), found(z))
        assert torch.equal(found.reconstruct(x), found.decode(found.encode(x)))
        assert found.encode(x).shape == (4, 6) and torch.equal(found.encode(x), found.encode(x))


@pytest.mark.parametrize("name", CODES)
def test_each_player_moves_its_own_networks_and_all_of_them(name):
    step = make(CODES[name])
    before = {n: [p.clone() for p in net.parameters()] for n, net in step.state.networks.items()}
    load(step)
    step()
    for n, net in step.state.networks.items():
        moved = [not torch.equal(a, b) for a, b in zip(before[n], net.parameters())]
        assert all(moved), n


def test_alis_codes_in_training_are_drawn_around_those_that_encode_names():
    """μ + σ·ε, σ from the second half of E's numbers."""

    class Turn:
        x = torch.zeros(50_000, 1)
        figures: dict = {}

        def E(self, x):
            return torch.tensor([1.0, -2.0, math.log(4.0), math.log(0.25)]).expand(len(x), 4)

        def normal(self, n):
            return torch.randn(len(self.x), n, generator=torch.Generator().manual_seed(0))

        def log(self, **figures):
            self.figures.update(figures)

    codes = ALI(latent_dim=2).infer(Turn())
    assert codes.mean(0).tolist() == pytest.approx([1, -2], abs=0.05)
    assert codes.std(0).tolist() == pytest.approx([2, 0.5], rel=0.03)
    assert float(Turn.figures["deviation"]) == pytest.approx(1.25)


# -- the score ---------------------------------------------------------------------------------------------------------


def stripes(count: int, seed: int) -> Dataset:
    """Images of two classes, bright above or below, amid noise."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(100, (count, 16, 16, 1), dtype=torch.uint8, generator=random)
    labels = torch.randint(2, (count,), generator=random)
    pixels[labels == 0, :8] += 100
    pixels[labels == 1, 8:] += 100
    return Dataset("stripes", images=pixels, labels=labels)


def test_codes_are_judged_by_four_fifths_of_the_data_or_by_the_runs_own():
    data, own, found = stripes(100, 0), stripes(300, 1), trained(BiGAN(**SMALL), stripes(1, 0))
    state = torch.get_rng_state()
    report = representing.report(found, data, None, False)
    assert (report.fitted, report.judged, report.numbers) == (80, 20, 6)
    assert report.raw.neighbour == report.raw.linear == 1 and "four fifths" in str(report)
    by_own = representing.report(found, data, own, False)
    assert (by_own.fitted, by_own.judged) == (300, 100) and "the run's training data" in str(by_own)
    assert representing.report(found, data, own, False) == by_own and torch.equal(state, torch.get_rng_state())
    # wrong labels of the own data would show
    own.labels.mul_(-1).add_(1)
    assert representing.report(found, data, own, False).raw.neighbour == 0


def test_a_random_encoder_is_not_the_trained_one():
    data, found = stripes(200, 0), trained(BiGAN(**SMALL), stripes(1, 0))
    for p in found.networks["E"].parameters():
        p.data.zero_()
    report = representing.report(found, data, None, False)
    assert report.encoder.linear < 0.75 < report.random.linear and report.raw.linear == 1


def test_data_without_two_classes_has_no_such_score():
    found = trained(BiGAN(**SMALL), stripes(1, 0))
    assert representing.report(found, Dataset("bare", images=stripes(9, 0).samples), None, False) is None
    same = Dataset("same", images=stripes(9, 0).samples, labels=torch.zeros(9, dtype=torch.int64))
    assert representing.report(found, same, None, False) is None


def test_evaluate_judges_a_test_split_by_the_training_split(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, test = stripes(300, 1), stripes(100, 0)
    arrays = {"x_train": train.samples, "y_train": train.labels, "x_test": test.samples, "y_test": test.labels}
    np.savez("parts.npz", **{name: values.numpy() for name, values in arrays.items()})
    words = ["--data", "parts.npz", "--width", "4", "--latent-dim", "6", "--steps", "2", "--batch", "8"]
    assert main(["train", "bigan", *words]) == 0
    run = Path("runs/00000-bigan-parts")
    for words in (["--split", "test"], ["--split", "train"]):  # the second is what it was trained on
        assert main(["evaluate", str(run), "--samples", "20", *words]) == 0
    assert "100 rows, by 300 others (of the run's training data)" in capsys.readouterr().out
    rows = [json.loads(line) for line in (run / "metric-representation.jsonl").read_text().splitlines()]
    assert [(row["fitted"], row["judged"]) for row in rows] == [(300, 100), (240, 60)]
    assert rows[0]["raw"] == {"neighbour": 1.0, "linear": 1.0} and 0 <= rows[0]["encoder"]["neighbour"] <= 1
