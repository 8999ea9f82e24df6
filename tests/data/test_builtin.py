"""The data sets that need no file."""

import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ganfast.data import open_dataset
from ganfast.data.gaussians import MODES
from ganfast.errors import InputError


def test_digits():
    data = open_dataset("digits")
    assert (data.name, data.shape, len(data), data.num_classes) == ("digits", (1, 32, 32), 1797, 10)
    assert data.labels.tolist() == load_digits().target.tolist()
    small = data.samples[..., 0].float().unflatten(1, (8, 4)).unflatten(3, (8, 4)).mean((2, 4))
    original = torch.from_numpy(load_digits().images).float() * 255 / 16
    correlation = torch.corrcoef(torch.stack([small.flatten(), original.flatten()]))[0, 1]
    assert correlation > 0.97 and data.samples.max() == 255 and data.samples.min() == 0
    assert open_dataset("digits", size=16, channels=3).shape == (3, 16, 16)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install 'ganfast\[demo\]'"):
        open_dataset("digits")


@pytest.mark.parametrize("name, modes, std", [("ring8", 8, 0.01), ("grid25", 25, 0.05)])
def test_gaussians_are_pacgans(name, modes, std):
    data = open_dataset(f"gaussians:{name}")
    centres, given = MODES[name]
    assert given == std and centres.shape == (modes, 2)
    assert (data.name, data.kind, data.shape, len(data)) == (f"gaussians-{name}", "points", (2,), 100_000)
    assert data.samples.dtype == torch.float32 and data.num_classes == modes
    noise = (data.samples - centres[data.labels]).double()
    error = 5 / np.sqrt(200_000)  # five standard errors
    assert abs(noise.std().item() / std - 1) < error and abs(noise.mean().item() / std) < error
    share = torch.bincount(data.labels) / 100_000 * modes
    assert (share - 1).abs().max() < 5 * np.sqrt(modes / 100_000)
    assert torch.equal(open_dataset(f"gaussians:{name}").samples, data.samples)


def test_gaussian_centres():
    assert (MODES["ring8"][0].norm(dim=1) - 1).abs().max() < 1e-6
    assert torch.pdist(MODES["ring8"][0]).min() > 0.76
    assert sorted(map(tuple, MODES["grid25"][0].tolist())) == [(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)]


def test_the_points_never_change():
    assert [open_dataset(f"gaussians:{n}").fingerprint() for n in MODES] == [
        "100000x2-4cc2f807b84661fb",
        "100000x2-743db5d660454a68",
    ]


def test_unknown_gaussians_list_what_exists():
    with pytest.raises(InputError, match=r"gaussians:ring9: .*gaussians:ring8, gaussians:grid25"):
        open_dataset("gaussians:ring9")


@pytest.mark.parametrize("option", [{"size": 32}, {"channels": 1}])
def test_points_have_no_size(option):
    with pytest.raises(InputError, match="holds points"):
        open_dataset("gaussians:ring8", **option)


def test_stacked_images_are_three_of_the_source():
    base, data = open_dataset("digits", size=16), open_dataset("stacked:digits", size=16)
    assert (data.name, data.shape, len(data), data.num_classes) == ("stacked-digits", (3, 16, 16), 128_000, 1000)
    assert data.names["labels"][42] == "042"
    rows = {image.numpy().tobytes(): int(label) for image, label in zip(base.samples[..., 0], base.labels)}
    for image, label in zip(data.samples[-3:], data.labels[-3:]):
        digits = [rows[image[..., c].contiguous().numpy().tobytes()] for c in range(3)]
        assert int("".join(map(str, digits))) == label
    share = torch.bincount(data.labels // 100, minlength=10) / 128_000
    assert (share - torch.bincount(base.labels) / len(base)).abs().max() < 5 * np.sqrt(0.1 / 128_000)
    assert open_dataset("stacked:digits", size=16).fingerprint() == data.fingerprint()
    with pytest.raises(InputError, match="--channels 1: stacked images have 3"):
        open_dataset("stacked:digits", channels=1)


def test_what_cannot_be_stacked_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="^/nowhere: no such file"):
        open_dataset("stacked:/nowhere")
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 16, 16), np.uint8))
    with pytest.raises(InputError, match="stacked:a: needs grey images with labels"):
        open_dataset(f"stacked:{tmp_path}/a.npz")
