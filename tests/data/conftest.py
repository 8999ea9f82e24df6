"""Small images and folders of them."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """picture(k, size=16, mode="RGB"): an image of noise that depends on k alone."""

    def make(k: int, size: int = 16, mode: str = "RGB") -> Image.Image:
        pixels = np.random.default_rng(k).integers(256, size=(size, size, 3), dtype=np.uint8)
        return Image.fromarray(pixels).convert(mode)

    return make


@pytest.fixture
def folder(tmp_path, picture):
    """folder("a/x.png", "y.png", ...): a folder "set" with those pictures, numbered in the order given."""

    def make(*names: str):
        for k, name in enumerate(names):
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(k).save(path)
        return tmp_path / "set"

    return make


@pytest.fixture
def saved(tmp_path):
    """saved(array) → path of a .npy; saved(x=…, y=…) → path of a .npz."""

    def save(array=None, **arrays):
        if array is not None:
            np.save(tmp_path / "some data.npy", array)
            return str(tmp_path / "some data.npy")
        np.savez(tmp_path / "some data.npz", **arrays)
        return str(tmp_path / "some data.npz")

    return save
