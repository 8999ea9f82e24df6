"""The size that images are brought to: by default, by --size, rectangles, and what is said about it."""

import io

import numpy as np
import pytest
import torch
from data.made import place
from PIL import Image

from ganfast.data import open_dataset, pack
from ganfast.data.options import parse_size, size_word
from ganfast.data.sources import open_titled
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


# -- pictures that are larger than what networks see -------------------------------------------------------------------


def test_pictures_at_their_load_size_and_the_centre_of_them(tmp_path):
    data = opened(tmp_path, *[(50, 40)] * 3, size=32, load_size="40x36", fit="stretch")
    assert data.shape == (1, 32, 32) and data.whole.shape == (1, 36, 40)
    assert torch.equal(data.samples, data.whole.samples[:, 2:34, 4:36])
    path = str(tmp_path / "set")
    assert torch.equal(
        data.whole.samples, open_titled(path, size=32, load_size="40x36", fit="stretch")[0].whole.samples
    )
    part = open_dataset(f"part:train:{path}", size=32, load_size="40x36", fit="stretch")
    assert torch.equal(part.samples, data.samples[1:]) and torch.equal(part.whole.samples, data.whole.samples[1:])
    pairs = open_dataset(path, path, size="32x16", load_size="40x20")
    assert torch.equal(pairs.columns["targets"], pairs.samples) and pairs.spec("targets").shape == (1, 16, 32)


def test_a_load_size_that_cannot_be_is_refused(tmp_path):
    for load, size, words in (
        ("x", 32, "--load-size x: give pixels a side, as 72, or width x height"),
        (72, None, "--load-size 72: give --size as well"),
        (32, 32, "--load-size 32: crops of --size 32 need pictures that are larger"),
        (72, "128x64", "--load-size 72: crops of --size 128x64 need pictures"),
        ("64x31", 32, "--load-size 64x31: crops of --size 32"),
    ):
        with pytest.raises(InputError, match=words):
            opened(tmp_path, (40, 40), size=size, load_size=load)
    with pytest.raises(InputError, match="holds points, not images; leave out --size, --load-size"):
        open_dataset("gaussians:ring8", size=32, load_size=40)
    with pytest.raises(InputError, match="crops of 16×16 pixels need pictures of one size, no smaller, got none"):
        open_dataset("gaussians:ring8").cropped(16, 16)
    with pytest.raises(InputError, match="no smaller, got 32×32"):
        open_dataset("digits", size=32).cropped(16, 48)


def test_packed_at_a_load_size(tmp_path):
    source, dest = (
        place(tmp_path, "folder", {f"{k}.png": image(48, 48) for k in range(3)}),
        str(tmp_path / "p.safetensors"),
    )
    assert pack(source, dest, size=32, load_size=40).shape == (1, 40, 40)
    data = open_dataset(dest, size=32, load_size=40)
    assert data.shape == (1, 32, 32) and torch.equal(data.samples, open_dataset(source, size=32, load_size=40).samples)
    with pytest.raises(InputError, match="packed for crops at random: give --load-size 40, and a --size below it"):
        open_dataset(dest)
    for options in ({"size": 32, "load_size": 36}, {"size": 32}):
        with pytest.raises(InputError, match="packed at --size 40"):
            open_dataset(dest, **options)
