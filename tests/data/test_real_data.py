"""Real MNIST, emoji, photographs with named classes, and pairs."""

import gzip
import zipfile

import numpy as np
import pytest
from PIL import Image

from ganfast.data import Sampler, open_dataset, pack


@pytest.mark.slow
def test_mnist(real_data, tmp_path):
    data = open_dataset(str(real_data / "mnist"))
    assert (data.name, data.shape, len(data), data.num_classes) == ("mnist", (1, 32, 32), 60_000, 10)
    raw = gzip.decompress((real_data / "mnist" / "train-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    labels = gzip.decompress((real_data / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    assert data.labels.tolist() == list(labels)
    for k in (0, 1, 59_999):
        expected = Image.fromarray(images[k]).resize((32, 32), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(data.samples[k, ..., 0].numpy(), np.asarray(expected))
    packed = pack(str(real_data / "mnist"), str(tmp_path / "mnist.safetensors"))
    assert packed.fingerprint() == data.fingerprint()


def test_emoji(real_data, tmp_path):
    path = real_data / "emoji" / "noto-emoji-64.zip"
    data = open_dataset(str(path))
    assert (data.name, data.shape, len(data), data.labels) == ("noto-emoji-64", (3, 64, 64), 3583, None)
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())
        for k in range(0, 3583, 100):
            expected = Image.open(archive.open(names[k])).convert("RGB")
            np.testing.assert_array_equal(data.samples[k].numpy(), np.asarray(expected))
    packed = pack(str(path), str(tmp_path / "emoji.safetensors"))
    assert (packed.samples == data.samples).all() and packed.fingerprint() == data.fingerprint()
    batch = Sampler(packed, 64, seed=0, flip=True).next()["images"]
    assert batch.shape == (64, 3, 64, 64) and batch.min() >= -1 and batch.max() <= 1
    assert batch.mean() > 0  # emoji on white


def test_flowers_have_names(real_data):
    data = open_dataset(str(real_data / "flowers" / "flowers-64.zip"), skip_bad=True)
    assert data.names["labels"] == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert len(data) == 3129 and data.labels.bincount().min() > 400 and data.skipped == () and len(data.notes) == 1


def test_pairs_of_microscope_pictures_and_label_maps(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "nuclei" / "nuclei-pairs-128.zip") as archive:
        chosen = [name for name in archive.namelist() if name[-8:-4] < "0020" and "/" in name]
        archive.extractall(tmp_path, chosen)
    data = open_dataset(str(tmp_path / "label"), targets=str(tmp_path / "photo"))
    assert data.columns.keys() == {"images", "targets"} and data.shape == (3, 128, 128) and len(data) == 20
    assert data.spec("targets").shape == (3, 128, 128)
    with Image.open(tmp_path / "photo" / "0007.jpg") as image:
        np.testing.assert_array_equal(data.columns["targets"][7].numpy(), np.asarray(image.convert("RGB")))
