"""Pairs of images: side by side in one picture, from two sources, in arrays."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from ganfast.data import Images, match, open_dataset
from ganfast.errors import InputError


@pytest.fixture
def save(tmp_path):
    """save("a/1.png", pixels or image): writes below the test's folder."""

    def write(name, image):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
        return path

    return write


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("layout, first", [("ab", "images"), ("ba", "targets")])
def test_both_sides_in_one_picture(save, tmp_path, layout, first):
    pictures = [noise(32, 64, k) for k in range(3)]
    for k, picture in enumerate(pictures):
        save(f"set/{k}.png", picture)
    data = open_dataset(str(tmp_path / "set"), layout=layout)
    second = {"images": "targets", "targets": "images"}[first]
    assert list(data.columns) == ["images", "targets"] and data.shape == (3, 32, 32)
    np.testing.assert_array_equal(data.columns[first].numpy(), np.stack(pictures)[:, :, :32])
    np.testing.assert_array_equal(data.columns[second].numpy(), np.stack(pictures)[:, :, 32:])
    specs = match("pix2pix", {"x": Images(), "y": Images("targets")}, [data])
    assert specs["x"] == specs["y"]


def test_the_sides_get_the_same_geometry(save, tmp_path):
    side = noise(40, 50)
    save("set/1.png", np.concatenate([side, 255 - side], 1))
    data = open_dataset(str(tmp_path / "set"), layout="ab", size=16)
    alone = Image.fromarray(side[:, 5:45]).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(data.samples[0].numpy(), np.asarray(alone))
    sums = data.samples[0].int() + data.columns["targets"][0].int()
    assert (sums - 255).abs().max() <= 1  # rounding


def test_the_default_size_is_that_of_a_side(save, tmp_path):
    save("set/1.png", noise(64, 64))
    assert open_dataset(str(tmp_path / "set"), layout="ab").shape == (3, 32, 32)
    assert open_dataset(str(tmp_path / "set")).shape == (3, 64, 64)


def test_a_picture_too_narrow_for_two_sides_is_named(save, tmp_path):
    save("set/1.png", noise(32, 64))
    save("set/2.png", noise(32, 12))
    with pytest.raises(InputError, match=r"set: 2\.png: 12 pixels wide.*--skip-bad"):
        open_dataset(str(tmp_path / "set"), layout="ab")
    assert open_dataset(str(tmp_path / "set"), layout="ab", skip_bad=True).skipped == ("2.png",)


def test_an_array_of_both_sides(tmp_path):
    array = np.stack([noise(16, 32, k) for k in range(2)])
    for name, values in (("nhwc", array), ("nchw", array.transpose(0, 3, 1, 2)), ("wide", np.repeat(array, 2, -1))):
        np.save(tmp_path / f"{name}.npy", values)
        data = open_dataset(str(tmp_path / f"{name}.npy"), layout="ba")
        expected = np.repeat(array, 2, -1) if name == "wide" else array
        np.testing.assert_array_equal(data.columns["images"].numpy(), expected[:, :, 16:])
        np.testing.assert_array_equal(data.columns["targets"].numpy(), expected[:, :, :16])
    np.save(tmp_path / "narrow.npy", array[:, :, :15])
    with pytest.raises(InputError, match=r"narrow\.npy: 15 pixels wide"):
        open_dataset(str(tmp_path / "narrow.npy"), layout="ab")


@pytest.mark.parametrize("zipped", [False, True])
def test_the_files_of_equal_names_in_two_places(save, tmp_path, zipped):
    for k, name in enumerate(("x/2", "x/1", "y/1")):
        save(f"A/{name}.png", noise(32, 32, k))
        save(f"B/{name}.webp", Image.fromarray(noise(64, 64, 9 + k)).convert("P"))
    (tmp_path / "A" / "dataset.json").write_text(json.dumps({"labels": {"x/2.png": 2, "x/1.png": 1, "y/1.png": 7}}))
    target = tmp_path / "B"
    if zipped:
        target = tmp_path / "B.zip"
        with zipfile.ZipFile(target, "w") as archive:
            for file in (tmp_path / "B").rglob("*.webp"):
                archive.write(file, file.relative_to(tmp_path / "B"))
    data = open_dataset(str(tmp_path / "A"), targets=str(target))
    assert list(data.columns) == ["images", "targets", "labels"] and data.name == "A"
    assert data.labels.tolist() == [0, 1, 2] and data.names == {"labels": ("1", "2", "7")}
    np.testing.assert_array_equal(data.samples.numpy(), np.stack([noise(32, 32, k) for k in (1, 0, 2)]))
    with Image.open(tmp_path / "B" / "x" / "1.webp") as image:
        expected = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(data.columns["targets"][0].numpy(), expected)


def test_one_grey_side_and_one_in_colour_are_both_in_colour(save, tmp_path):
    save("A/1.png", noise(16, 16)[..., 0])
    save("B/1.png", noise(16, 16))
    source, targets = str(tmp_path / "A"), str(tmp_path / "B")
    data = open_dataset(source, targets=targets)
    assert data.spec("images").shape == data.spec("targets").shape == (3, 16, 16)
    assert open_dataset(source, targets=targets, channels=1).spec("targets").shape == (1, 16, 16)


@pytest.mark.parametrize(
    "own, others, words",
    [
        (("1", "2", "3"), ("1",), r"B: has no partner for 2\.png of .*A \(2 in all"),
        (("1",), ("1", "sub/2"), r"A: has no partner for sub/2\.png of .*B \(1 in all"),
    ],
)
def test_a_name_without_a_partner(save, tmp_path, own, others, words):
    for side, names in (("A", own), ("B", others)):
        for name in names:
            save(f"{side}/{name}.png", noise(16, 16))
    with pytest.raises(InputError, match=words):
        open_dataset(str(tmp_path / "A"), targets=str(tmp_path / "B"), skip_bad=True)


def test_two_partners(save, tmp_path):
    for name in ("A/1.png", "B/1.png", "B/1.bmp"):
        save(name, noise(16, 16))
    with pytest.raises(InputError, match=r"B: 1\.bmp and 1\.png differ only in the suffix"):
        open_dataset(str(tmp_path / "A"), targets=str(tmp_path / "B"))


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_bad_side_is_named_and_skips_the_pair(save, tmp_path, side):
    for k in range(3):
        save(f"A/{k}.png", noise(16, 16, k))
        save(f"B/{k}.png", noise(16, 16, 5 + k))
    (tmp_path / side / "1.png").write_bytes(b"")
    source, targets = str(tmp_path / "A"), str(tmp_path / "B")
    with pytest.raises(InputError, match=rf"{side}: 1\.png: not an image.*--skip-bad"):
        open_dataset(source, targets=targets)
    data = open_dataset(source, targets=targets, skip_bad=True)
    assert data.skipped == ("1.png",) and len(data) == 2
    np.testing.assert_array_equal(data.columns["targets"][1].numpy(), noise(16, 16, 7))


def test_sides_of_other_proportions_are_refused(save, tmp_path):
    save("A/1.png", noise(32, 32))
    save("B/1.png", noise(32, 40))
    with pytest.raises(InputError, match=r"B: 1\.png: a pair of 32×32 and 40×32 pixels"):
        open_dataset(str(tmp_path / "A"), targets=str(tmp_path / "B"))


def test_options_that_do_not_go_together(save, tmp_path):
    source = str(save("A/1.png", noise(16, 32)).parent)
    np.save(tmp_path / "x.npy", np.zeros((2, 16, 16), np.uint8))
    for options, words in (
        ({"layout": "lr"}, "layout must be ab or ba, got 'lr'"),
        ({"layout": "ab", "targets": source}, "--layout ab: both sides lie in one picture"),
        ({"targets": str(tmp_path / "x.npy")}, r"x\.npy: pairs of two sources are folders or zips"),
        ({"targets": str(tmp_path / "gone")}, "gone: no such file"),
        ({"targets": "digits"}, "digits: pairs of two sources"),
    ):
        with pytest.raises(InputError, match=words):
            open_dataset(source, **options)
    with pytest.raises(InputError, match=r"holds points, not images; leave out --layout"):
        open_dataset("gaussians:ring8", layout="ab")
