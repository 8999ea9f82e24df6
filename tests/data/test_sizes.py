"""The size that images are brought to: by default, by --size, rectangles, and what is said about it."""

import io

import numpy as np
import pytest
import torch
from data.made import place
from PIL import Image

from ganfast.data import open_dataset, pack
from ganfast.data.options import parse_size, size_word
from ganfast.errors import InputError


def image(width, height):
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 90).save(buffer, "PNG")
    return buffer.getvalue()


def opened(tmp_path, *sizes, **options):
    return open_dataset(place(tmp_path, "folder", {f"{k}.png": image(*s) for k, s in enumerate(sizes)}), **options)


def test_the_size_that_most_images_allow(tmp_path):
    data = opened(tmp_path, (9, 9), *[(64, 64)] * 4, (128, 128))
    assert data.shape == (1, 64, 64)
    assert data.notes == (
        "size 64, which suits most of the images (shorter sides between 9 and 128 pixels; --size for another)",
    )
    assert opened(tmp_path, (9, 9), *[(64, 64)] * 4, (128, 128), size=32).notes == ()


def test_images_of_other_proportions_are_cropped_and_that_is_said(tmp_path):
    sizes = [(48, 32)] * 3
    assert opened(tmp_path, *sizes).notes == (
        "images such as 48×32 are cropped to their centre (--fit pad or stretch keeps all of them, --size 48x32 is "
        "nearer to their proportions)",
    )
    for options in ({"fit": "pad"}, {"fit": "stretch"}, {"size": "48x32"}):
        assert opened(tmp_path, *sizes, **options).notes == ()
    assert opened(tmp_path, (32, 48), size="32x48").shape == (1, 48, 32)


@pytest.mark.parametrize("size", ["48x32", "32x48", "128x32"])
def test_rectangles_from_files_arrays_and_packed_files(tmp_path, size):
    width, height = map(int, size.split("x"))
    data = opened(tmp_path, *[(width, height)] * 3, size=size)
    assert data.shape == (1, height, width) and data.spec("images").shape == (1, height, width)
    np.save(tmp_path / "a.npy", data.samples.numpy())
    assert torch.equal(open_dataset(str(tmp_path / "a.npy"), size=size).samples, data.samples)
    packed = pack(str(tmp_path / "a.npy"), str(tmp_path / "p.safetensors"), size=size)
    assert torch.equal(packed.samples, data.samples) and packed.fingerprint() == data.fingerprint()
    assert torch.equal(open_dataset(str(tmp_path / "p.safetensors"), size=size).samples, data.samples)
    with pytest.raises(InputError, match=f"packed at --size {size} with 1 channels, and --size is for the images"):
        open_dataset(str(tmp_path / "p.safetensors"), size=32)


def test_pairs_of_rectangles(tmp_path):
    data = opened(tmp_path, *[(64, 16)] * 2, layout="ab", size="32x16")
    assert data.spec("images").shape == data.spec("targets").shape == (1, 16, 32)


@pytest.mark.parametrize("size, pixels", [(64, (64, 64)), ("64", (64, 64)), ("128x64", (64, 128)), ("24X16", (16, 24))])
def test_sizes(size, pixels):
    assert parse_size(size) == pixels and parse_size(size_word(*pixels)) == pixels


@pytest.mark.parametrize(
    "size, words",
    [
        (48, "32 or 64"), ("48x48", "32 or 64"), ("40x24", "the shorter side is a power of two.*16 or 32"),
        ("65x64", "a multiple of 16, 256 at most"), ("320x64", "a multiple of 16, 256 at most"),
        ("x", "give pixels a side"), ("64x", "give pixels a side"), ("1x2x3", "give pixels"), ("-64", "give pixels"),
        ("512x512", "use 256"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be(size, words):
    with pytest.raises(InputError, match=f"--size {size}: .*{words}"):
        parse_size(size)
