"""Label maps: pixels that are classes, read beside their pictures."""

import io

import numpy as np
import pytest
import torch
from data.made import place, png
from PIL import Image

from ganfast.data import Loader, Sampler, open_dataset, pack
from ganfast.errors import InputError


def a_map(k, size=16, mode="P"):
    """(file, its classes): blocks of 4×4 pixels of the classes 0 … 4."""
    blocks = np.random.default_rng(k).integers(5, size=(size // 4, size // 4), dtype=np.uint8)
    classes = blocks.repeat(4, 0).repeat(4, 1)
    image, buffer = Image.fromarray(classes), io.BytesIO()
    if mode == "P":
        image.putpalette(list(range(255, 255 - 18, -1)))
    elif mode != "L":
        image = image.convert(mode)
    image.save(buffer, "PNG")
    return buffer.getvalue(), classes


@pytest.fixture
def pairs(tmp_path):
    maps = {k: a_map(k, mode="PL"[k % 2]) for k in range(5)}
    files = {f"image/{k}.png": png(k) for k in maps} | {f"label/{k}.png": file for k, (file, _) in maps.items()}
    return place(tmp_path, "zip", files), np.stack([classes for _, classes in maps.values()])


def test_partners_are_read_as_classes(pairs, tmp_path):
    path, classes = pairs
    data = open_dataset(f"{path}/image", f"{path}/label", maps=True, size=16)
    assert list(data.columns) == ["images", "maps"] and data.columns["images"].shape == (5, 16, 16, 3)
    assert np.array_equal(data.columns["maps"][..., 0], classes)
    spec = data.spec("maps")
    assert (spec.kind, spec.shape, spec.names) == ("maps", (16, 16), ("0", "1", "2", "3", "4"))
    packed = pack(f"{path}/image", str(tmp_path / "p.safetensors"), f"{path}/label", maps=True, size=16)
    assert packed.fingerprint() == data.fingerprint() and packed.names == data.names
    assert open_dataset(str(tmp_path / "p.safetensors"), maps=True).fingerprint() == data.fingerprint()
    alone = open_dataset(f"{path}/label", maps=True, size=16)
    assert alone.kind == "maps" and torch.equal(alone.samples, data.columns["maps"])


def test_sizes_make_no_new_classes(pairs):
    path, classes = pairs
    twice = open_dataset(f"{path}/image", f"{path}/label", maps=True, size=32)
    assert np.array_equal(twice.columns["maps"][..., 0], classes.repeat(2, 1).repeat(2, 2))
    wide = open_dataset(f"{path}/image", f"{path}/label", maps=True, size="32x16", fit="pad")
    assert np.array_equal(wide.columns["maps"][:, :, 8:24, 0], classes) and not wide.columns["maps"][:, :, :8].any()


def test_flips_and_crops_are_those_of_the_picture(tmp_path):
    files = {f"{k}.png": a_map(k, size=32)[0] for k in range(4)}  # the same files as pictures and as maps
    path = place(tmp_path, "folder", files)
    data = open_dataset(path, path, maps=True, size=16, load_size=32, channels=1)
    shades = {int(shade): int(c) for shade, c in zip(data.columns["images"].flatten(), data.columns["maps"].flatten())}
    loader = Loader(Sampler(data, 4, 0, flip=True, crop=True), 1, torch.device("cpu"))
    loader.load()
    batch = loader.batch(0)
    assert batch["maps"].dtype == torch.int64 and batch["maps"].shape == (4, 16, 16)
    found = batch["images"].add(1).mul(127.5).round().int()[:, 0]
    assert torch.equal(found.apply_(lambda shade: shades[shade]).long(), batch["maps"])


def test_what_is_no_map_is_named(tmp_path):
    files = {"image/0.png": png(0), "label/0.png": png(1)}
    path = place(tmp_path / "rgb", "folder", files)
    with pytest.raises(InputError, match=r"0\.png: a picture of mode RGB; label maps are palette or grey"):
        open_dataset(f"{path}/image", f"{path}/label", maps=True)
    wide = io.BytesIO()
    Image.fromarray(np.full((16, 16), 300, np.uint16)).save(wide, "PNG")
    path = place(tmp_path / "wide", "folder", {"image/0.png": png(0), "label/0.png": wide.getvalue()})
    with pytest.raises(InputError, match=r"classes from 300 to 300; they lie in 0 … 255"):
        open_dataset(f"{path}/image", f"{path}/label", maps=True)
    np.save(tmp_path / "a.npy", np.zeros((3, 16, 16), np.uint8))
    with pytest.raises(InputError, match="label maps are palette or grey pictures in files; give these"):
        open_dataset(str(tmp_path / "a.npy"), maps=True, size=32)
