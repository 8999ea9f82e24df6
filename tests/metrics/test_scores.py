"""Reports of samples over a network's features, beside their floor."""

import math

import pytest
import torch

from ganfast.data import Dataset, open_dataset
from ganfast.errors import InputError
from ganfast.metrics import cache, distances, features, neighbours, score_report, stacked_report, usable
from ganfast.metrics.features import Network
from ganfast.metrics.lenet import normalise
from ganfast.metrics.stacked import covered


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits", size=16)


class Pooled(torch.nn.Module):
    """16 mean brightnesses as features, ten of them as logits."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        found = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) * self.scale
        return found, found[:, :10]


@pytest.fixture
def network():
    return Network("pooled", Pooled(), "0")


def rows_of_floor(data: Dataset, half: int) -> torch.Tensor:
    return torch.randperm(len(data), generator=torch.Generator().manual_seed(distances.SEED))[: 2 * half]


def test_fresh_real_images_score_as_their_floor(digits, network):
    """Rows that are in neither half."""
    rows = rows_of_floor(digits, len(digits))[1200:]
    report = score_report(digits, normalise(digits.samples[rows]), network)
    assert (report.samples, report.real, report.floor_samples) == (597, 597, 597)
    values, floors = report.values, report.floors
    assert next(iter(values)) == "frechet-pooled" and set(floors) == set(values)
    assert floors["frechet-pooled"] > 0 and values["frechet-pooled"] < 3 * floors["frechet-pooled"]
    for name in ("precision-pooled", "recall-pooled", "density-pooled", "coverage-pooled"):
        assert values[name] == pytest.approx(floors[name], abs=0.08)
    assert values["nearer-pooled"] == pytest.approx(0.5, abs=0.05) and abs(values["copying-pooled"]) < 3
    assert "597 generated and 597 real images (real against real: 597 and 597)" in str(report)


def test_trivial_answers_are_scored_as_if_they_were_generated(digits, network):
    fakes, noise = normalise(digits.samples[:60]), torch.rand(60, 1, 16, 16) * 2 - 1
    report = score_report(digits, fakes, network, trivial={"input": noise})
    assert report.trivial["input"] == score_report(digits, noise, network).values
    assert str(report).splitlines()[1].split() == ["generated", "real", "input"]
    assert str(report).splitlines()[2].split()[3] == f"{report.trivial['input']['frechet-pooled']:.4g}"


def test_copies_blur_and_noise_are_seen(digits, network):
    a = rows_of_floor(digits, 400)[:400]
    copies = score_report(digits, normalise(digits.samples[a]), network).values
    assert copies["frechet-pooled"] < 1e-6 and copies["nearer-pooled"] > 0.95 and copies["copying-pooled"] < -10
    noise = score_report(digits, torch.rand(400, 1, 16, 16) * 2 - 1, network)
    assert noise.values["frechet-pooled"] > 20 * noise.floors["frechet-pooled"]
    assert noise.values["recall-pooled"] < 0.1 and noise.values["copying-pooled"] > 10


def test_real_features_are_computed_once_and_reports_are_equal(digits, network, monkeypatch):
    fakes = normalise(digits.samples[:300])
    first = score_report(digits, fakes, network)
    monkeypatch.setattr(features, "of_rows", None)  # is not called any more
    state = torch.get_rng_state()
    assert score_report(digits, fakes, network) == first
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(TypeError):
        score_report(digits, fakes, Network("pooled", network.module, "other weights"))
    with pytest.raises(TypeError):
        score_report(digits, fakes[:200], network)


def test_more_samples_than_half_of_the_data_are_compared_with_all_of_it(digits, network):
    report = score_report(digits, normalise(digits.samples[:1000]), network)
    assert (report.samples, report.real, report.floor_samples) == (1000, 1796, 898)
    assert usable(digits, 1000) == 898 and usable(digits, 100) == 100


@pytest.mark.parametrize("count, absent", [(2, "frechet"), (3, "frechet"), (8, "density"), (14, "nearer")])
def test_what_too_few_images_cannot_give_is_left_out(count, absent, digits, network):
    few = Dataset("few", images=digits.samples[:count])
    report = score_report(few, normalise(digits.samples[50:60]), network)
    assert f"{absent}-pooled" not in report.floors
    assert all(map(math.isfinite, [*report.values.values(), *report.floors.values()])) and str(report)


def test_no_score_at_all_is_one_sentence(digits, network):
    with pytest.raises(InputError, match="one has 1 image, too few for any score"):
        score_report(Dataset("one", images=digits.samples[:1]), normalise(digits.samples[:5]), network)
    with pytest.raises(InputError, match=r"makes samples of \(1, 8, 8\)"):
        score_report(digits, torch.zeros(5, 1, 8, 8), network)
    with pytest.raises(InputError, match="holds points"):
        score_report(Dataset("p", points=torch.zeros(9, 2)), torch.zeros(5, 2), network)


def test_samples_are_rounded_to_the_levels_that_images_have(digits, network):
    x = normalise(digits.samples[:40])
    near = (x + 0.003).clamp(-1, 1)  # less than half of a level, 1/127.5
    assert torch.equal(features.of_images(network, near)[0], features.of_images(network, x)[0])


def test_only_the_rows_that_are_compared_are_read(digits, network):
    """Of memory-mapped data the rest stays on the disk."""
    read = []

    class Mapped(Dataset):
        @property
        def samples(self):
            return Spy(super().samples)

    class Spy:
        def __init__(self, tensor):
            self.tensor, self.shape = tensor, tensor.shape

        def __len__(self):
            return len(self.tensor)

        def __getitem__(self, rows):
            read.append(len(rows))
            return self.tensor[rows]

    data = Mapped("mapped", images=digits.samples)
    score_report(data, normalise(digits.samples[:100]), network)
    assert max(read) <= features.BATCH and sum(read) == 200


def test_neighbours_are_found_across_stretches(digits, network):
    at = torch.tensor([3, 1030, 1796])
    found = neighbours(digits, normalise(digits.samples[at]), network)
    assert found.pixels[0].tolist() == at.tolist() and found.pixels[1].max() < 1e-3
    assert found.features[1].max() < 1e-2 and "nearest training image by pixels" in str(found)
    shifted = neighbours(digits, normalise(digits.samples[at]) * 0.9, network)
    assert shifted.pixels[0].tolist() == at.tolist() and 0 < shifted.pixels[1].min() < 0.2


# -- stacked images ----------------------------------------------------------------------------------------------------


def test_modes_of_stacked_labels():
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    uniform = torch.full((4,), 0.25).double()
    assert covered(every, uniform) == (64, pytest.approx(0, abs=1e-12))
    assert covered(every[:1].expand(50, 3), uniform) == (1, pytest.approx(math.log(64)))
    modes, kl = covered(every[every[:, 0] < 2], uniform)
    assert modes == 32 and kl == pytest.approx(math.log(2))
    shares = torch.tensor([0.5, 0.5, 0, 0]).double()
    assert covered(torch.tensor([[0, 1, 1]]), shares) == (1, pytest.approx(math.log(8)))


def test_stacked_digits_cover_their_modes_and_a_collapse_shows(digits):
    real = normalise(digits.samples[..., 0][torch.randint(len(digits), (3000, 3)).flatten()].view(3000, 3, 16, 16)
                     .permute(0, 2, 3, 1))  # fmt: skip
    report = stacked_report(digits, real, steps=100)
    assert report.accuracy > 0.9 and report.total == 1000
    assert report.modes > 900 and report.kl < 2 * report.floor_kl < 0.6
    assert "classifier's accuracy on held-out images" in str(report)
    collapsed = stacked_report(digits, real[:1].expand(100, -1, -1, -1), steps=100)
    assert collapsed.modes == 1 and collapsed.kl == pytest.approx(math.log(1000), abs=0.3)
    with pytest.raises(InputError, match=r"makes samples of \(1, 16, 16\), stacked images are \(3, 16, 16\)"):
        stacked_report(digits, real[:, :1])


def test_keys_tell_values_apart():
    a, b = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    assert cache.digest(a) != cache.digest(b) and cache.digest(a) == cache.digest({"w": torch.zeros(2)})
    assert cache.key("a", 1) != cache.key("a", 2)
