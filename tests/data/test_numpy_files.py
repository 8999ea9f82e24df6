""".npz files: which array holds the samples, labels and further columns beside them, and damage."""

import zipfile

import numpy as np
import pytest
import torch

from ganfast.data import Images, match, open_dataset
from ganfast.data import rows as rows_module
from ganfast.errors import InputError


def noise(*shape):
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("key", ["images", "x", "x_train", "arr_0", "whatever"])
def test_npz_samples_by_key(saved, key):
    arrays = {key: noise(3, 16, 16), "y": np.array([2, 0, 1], np.int32), "other": np.zeros((2, 2))}
    data = open_dataset(saved(**arrays))
    np.testing.assert_array_equal(data.samples[..., 0].numpy(), arrays[key])
    assert data.labels.tolist() == [2, 0, 1] and data.labels.dtype == torch.int64


def test_npz_whose_samples_are_not_clear(saved):
    with pytest.raises(InputError, match=r"holds the arrays a, b.*images"):
        open_dataset(saved(a=noise(3, 16, 16), b=noise(3, 16, 16)))


@pytest.mark.parametrize("name", ["labels", "attributes", "names", "targets"])
def test_what_goes_with_samples_is_not_enough(saved, name):
    with pytest.raises(InputError, match=f"holds the arrays {name}; name the samples one of images, .*, tokens$"):
        open_dataset(saved(**{name: np.zeros((3, 4))}))


@pytest.mark.parametrize(
    "labels, column, values",
    [
        (np.array([4, 20231107, 4]), "labels", [0, 1, 0]),
        (np.eye(3, dtype=np.float32)[[2, 0, 1]], "labels", [2, 0, 1]),
        (np.array(["b", "a", "b"]), "labels", [1, 0, 1]),
        (np.array([0.5, 1, 2]), "attributes", [[0.5], [1], [2]]),
        (np.array([[1, 2], [3, 4], [5, 6]]), "attributes", [[1, 2], [3, 4], [5, 6]]),
    ],
)
@pytest.mark.parametrize("samples", [noise(3, 16, 16), np.zeros((3, 2))])
def test_labels(saved, samples, labels, column, values):
    data = open_dataset(saved(x=samples, labels=labels))
    assert data.columns[column].tolist() == values and list(data.names) == [column] and len(data.columns) == 2


def test_names(saved):
    arrays = {"x": noise(2, 16, 16), "y": np.array([1, 0])}
    assert open_dataset(saved(**arrays, names=np.array(["cat", "dog"]))).names == {"labels": ("cat", "dog")}
    assert (
        open_dataset(saved(**arrays, names=np.array(["cat"]))).absent["labels"] == "1 names for 2 classes from 0 to 1"
    )
    arrays["y"] = np.array([[1.5, 0], [2, 1]])
    assert open_dataset(saved(**arrays, names=np.array(["age", "hat"]))).names == {"attributes": ("age", "hat")}
    arrays = {"x": noise(2, 16, 16), "attributes": arrays["y"]}
    assert open_dataset(saved(**arrays, names=np.array(["age", "hat"]))).names == {"attributes": ("age", "hat")}
    assert open_dataset(saved(**arrays, names=np.array([{}], object))).names == {"attributes": ("0", "1")}
    assert "1 names" in open_dataset(saved(**arrays, names=np.array(["age"]))).absent["attributes"]


@pytest.mark.parametrize(
    "labels, reason",
    [
        (np.zeros(2, np.int64), "2 labels for 3 samples"),
        (np.zeros((3, 2, 2)), "labels have the shape"),
        (np.array([0, np.nan, 2]), "NaN or infinity"),
        (np.array([None, 1, "a"], object), "the array labels is damaged or holds Python objects"),
    ],
)
def test_labels_that_do_not_fit_are_left_out_with_the_reason(saved, labels, reason):
    data = open_dataset(saved(images=noise(3, 16, 16), labels=labels))
    assert list(data.columns) == ["images"] and data.absent["labels"].startswith(reason)


COLUMNS = {
    "points": np.array([[0.5, 1], [1, 2], [2, 3]]),
    "attributes": np.array([[1, 0, 1], [0, 1, 1], [1, 1, 1]], np.uint8),
    "tokens": np.array([[1, 2], [3, 4], [5, 6]], np.int32),
    "audio": np.array([[0, 2**15 - 1], [5, -(2**15)], [1, 2]], ">i2"),
    "clips": noise(3, 2, 4, 6, 3),
    "targets": noise(3, 32, 32),
}
DTYPES = {
    "points": torch.float32, "attributes": torch.float32, "tokens": torch.int64, "audio": torch.int16,
    "clips": torch.uint8, "targets": torch.uint8,
}  # fmt: skip


def test_columns_beside_images(saved):
    data = open_dataset(saved(**COLUMNS, images=noise(3, 32, 32), y=np.array([1, 0, 2])))
    assert next(iter(data.columns)) == "images" and data.columns.keys() == {"images", "labels", *COLUMNS}
    assert data.absent == {} and data.kind == "images"
    for name, dtype in DTYPES.items():
        expected = COLUMNS[name][..., None] if name == "targets" else COLUMNS[name]
        assert data.columns[name].dtype == dtype
        np.testing.assert_array_equal(data.columns[name].numpy(), expected)


@pytest.mark.parametrize("name", ["points", "tokens", "audio", "clips"])
def test_a_column_that_is_the_data_set(saved, name):
    others = {"y": np.array([1, 0, 2]), "attributes": COLUMNS["attributes"], "other": np.zeros(7)}
    data = open_dataset(saved(**{name: COLUMNS[name]}, **others))
    assert list(data.columns) == [name, "labels", "attributes"] and data.kind == name
    np.testing.assert_array_equal(data.samples.numpy(), COLUMNS[name])


def test_explicit_attributes_come_before_those_of_labels(saved):
    data = open_dataset(saved(x=noise(3, 16, 16), y=np.array([0.5, 1, 2]), attributes=COLUMNS["attributes"]))
    assert data.columns["attributes"].shape == (3, 3) and "attributes" not in data.absent
    data = open_dataset(saved(x=noise(3, 16, 16), y=np.zeros(2), attributes=COLUMNS["attributes"]))
    assert data.columns["attributes"].shape == (3, 3) and list(data.absent) == ["labels"]


BAD = [
    ("points", np.zeros((3, 2), np.int64), "points are floats"),
    ("points", np.full((3, 2), np.nan), "NaN or infinity"),
    ("attributes", np.zeros((3, 2, 2)), r"not numbers \[N, A\]"),
    ("attributes", np.array(["a", "b", "c"]), r"not numbers \[N, A\]"),
    ("tokens", np.zeros((3, 2)), "tokens are whole numbers"),
    ("tokens", np.zeros(3, np.int64), "tokens are whole numbers"),
    ("tokens", np.full((3, 2), -1), "from -1 to -1; tokens count from 0"),
    ("audio", np.zeros((3, 2), np.int32), "audio of int32"),
    ("audio", np.full((3, 2), 1.5), r"beyond \[-1, 1\]"),
    ("audio", np.full((3, 2), np.inf), "NaN, infinity"),
    ("audio", np.zeros((3, 2, 1), np.int16), r"audio is int16 or floats \[N, T\]"),
    ("clips", np.zeros((3, 2, 4, 4, 3), np.uint16), "clips of uint16"),
    ("clips", noise(3, 4, 4, 3), "clips are uint8"),
]


@pytest.mark.parametrize("name, values, reason", BAD)
def test_a_column_beside_the_samples_that_cannot_be_used_is_left_out(saved, name, values, reason):
    data = open_dataset(saved(x=noise(3, 16, 16), **{name: values}))
    assert list(data.columns) == ["images"]
    with pytest.raises(InputError, match=f"^its array {name}: .*{reason}"):
        raise InputError(data.absent[name])


@pytest.mark.parametrize("name, values, reason", [case for case in BAD if case[0] != "attributes"])
def test_samples_that_cannot_be_used_are_refused(saved, name, values, reason):
    with pytest.raises(InputError, match=rf"some data\.npz: {name}: .*{reason}"):
        open_dataset(saved(**{name: values}))


@pytest.mark.parametrize(
    "targets, reason",
    [
        (noise(2, 32, 32), "targets: 2 targets for 3 images"),
        (noise(3, 32, 16), "targets: a pair of 32×32 and 16×32 pixels"),
        (noise(3, 32, 32, 4), "targets: targets of 4 channels for images of 1"),
        (np.array([{}] * 3, object), "the array targets is damaged or holds Python objects"),
    ],
)
def test_targets_that_cannot_be_used_are_left_out(saved, targets, reason):
    data = open_dataset(saved(x=noise(3, 32, 32), targets=targets))
    assert list(data.columns) == ["images"] and data.absent["targets"].startswith(reason)


def test_targets_have_the_channels_and_the_size_of_the_images(saved):
    path = saved(x=noise(3, 32, 32), targets=noise(3, 64, 64, 3))
    data = open_dataset(path)
    assert data.spec("images").shape == data.spec("targets").shape == (3, 32, 32)
    with pytest.raises(InputError, match="targets holds the targets; leave the option out"):
        open_dataset(path, layout="ab")


def test_a_damaged_column_beside_good_samples(saved):
    path = saved(x=noise(9, 16, 16), labels=np.arange(9), tokens=np.arange(1000, 1900).reshape(9, 100))
    with zipfile.ZipFile(path) as archive:
        places = {info.filename: info.header_offset + 200 for info in archive.infolist()}
    with open(path, "r+b") as file:
        for name in ("labels.npy", "tokens.npy"):
            file.seek(places[name])
            file.write(b"\xff\xff")
    data = open_dataset(path)
    assert list(data.columns) == ["images"]
    assert all("damaged" in data.absent[name] for name in ("labels", "tokens"))


def test_npz_that_claims_more_than_memory(saved, monkeypatch):
    monkeypatch.setattr(rows_module, "available_ram", lambda: 1000)
    with pytest.raises(InputError, match="GiB of memory"):
        open_dataset(saved(x=noise(9, 16, 16)))


def test_npz_with_a_damaged_member(saved):
    path = saved(x=noise(9, 16, 16))
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"\0\0\0\0")
    with pytest.raises(InputError, match="a damaged array file"):
        open_dataset(path)


# -- arrays as people name them ----------------------------------------------------------------------------------------


def test_splits_of_medmnist(saved):
    arrays = {f"{part}_images": noise(k, 28, 28) for part, k in (("train", 4), ("val", 2), ("test", 3))}
    arrays |= {f"{part}_labels": np.arange(k)[:, None] for part, k in (("train", 4), ("val", 2), ("test", 3))}
    path = saved(**arrays)
    data = open_dataset(path)
    assert len(data) == 4 and data.labels.tolist() == [0, 1, 2, 3]
    assert data.notes == (
        "took the part train_images of train_images, val_images, test_images (--split takes another)",
    )
    for split, count in (("val", 2), ("test", 3), ("validation", 2)):
        data = open_dataset(path, split=split)
        assert len(data) == len(data.labels) == count and data.notes == ()
    with pytest.raises(InputError, match="--split extra: its parts are train_images"):
        open_dataset(path, split="extra")


@pytest.mark.parametrize("split, count", [(None, 5), ("test", 3)])
def test_keras_names(saved, split, count):
    data = open_dataset(
        saved(x_train=noise(5, 28, 28), y_train=np.arange(5), x_test=noise(3, 28, 28), y_test=np.arange(3)), split=split
    )
    assert len(data) == count and data.labels.tolist() == list(range(count))


@pytest.mark.parametrize(
    "images, labels", [("data", "labels"), ("imgs", "label"), ("Images", "Y"), ("data", "targets")]
)
def test_other_usual_names(saved, images, labels):
    data = open_dataset(saved(**{images: noise(3, 16, 16, 3), labels: np.array([2, 0, 2])}))
    assert data.labels.tolist() == [1, 0, 1] and data.shape == (3, 16, 16)


def test_arrays_of_python_objects_are_passed_over_and_named(saved):
    data = open_dataset(
        saved(imgs=noise(3, 16, 16), metadata=np.array([{}, {}], object), latents_names=np.array("x", object))
    )
    assert list(data.columns) == ["images"]
    assert data.notes == ("passed over arrays that hold Python objects, which could run code: metadata, latents_names",)
    data = open_dataset(saved(imgs=noise(3, 16, 16), labels=np.array(["a", 1, None], object)))
    assert "the array labels" in data.absent["labels"] and "without labels: the array labels" in "".join(data.notes)


@pytest.mark.parametrize(
    "labels, column",
    [(np.eye(3), "labels"), (np.eye(3, dtype=int)[[2, 0, 1]], "labels"), (np.array([0.5, 1, 2]), "attributes")],
)
def test_one_hot_and_float_labels(saved, labels, column):
    assert column in open_dataset(saved(x=noise(3, 16, 16), y=labels)).columns


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint32, np.int16, np.float32, np.float64])
def test_whole_numbers_up_to_255_are_bytes(saved, dtype):
    pixels = noise(3, 16, 16)
    pixels[0, 0, 0] = 255
    np.testing.assert_array_equal(open_dataset(saved(pixels.astype(dtype))).samples[..., 0].numpy(), pixels)


def test_wide_integers_up_to_65535_have_16_bits(saved):
    pixels = noise(3, 16, 16).astype(np.int64) * 257
    pixels[0, 0, 0] = 65535
    np.testing.assert_array_equal(open_dataset(saved(pixels)).samples[..., 0].numpy(), pixels // 257)


@pytest.mark.parametrize(
    "shape, stored",
    [("16x16", (16, 16, 1)), ("16x16x3", (16, 16, 3)), ("3x16x16", (3, 16, 16)), ("16x24", (16, 24, 1))],
)
def test_flat_rows(saved, shape, stored):
    pixels = noise(4, *stored)
    path = saved(pixels.reshape(4, -1))
    with pytest.raises(InputError, match=rf"rows of {pixels[0].size} numbers; give --shape"):
        open_dataset(path)
    data = open_dataset(path, shape=shape, size=f"{stored[1]}x16" if shape == "16x24" else 16)
    expected = pixels.transpose(0, 2, 3, 1) if shape[0] == "3" else pixels
    np.testing.assert_array_equal(data.samples.numpy(), expected)


def test_shape_that_does_not_fit_and_shape_for_others(saved, tmp_path):
    with pytest.raises(InputError, match=r"--shape 28x28 is for rows of 784 numbers, not \[4, 100\]"):
        open_dataset(saved(noise(4, 100)), shape="28x28")
    with pytest.raises(InputError, match="--shape 28: give height x width"):
        open_dataset(saved(noise(4, 100)), shape="28")
    with pytest.raises(InputError, match="digits: --shape is for arrays of flat rows"):
        open_dataset("digits", shape="8x8")


def test_flat_floats_are_points_that_say_how_to_be_images(saved):
    path = saved(np.random.default_rng(0).random((4, 784), np.float32))
    data = open_dataset(path)
    assert data.kind == "points"
    with pytest.raises(InputError, match=r"needs images, .*its rows are 784 numbers: give --shape 28x28"):
        match("dcgan", {"x": Images()}, [data])
    assert open_dataset(path, shape="28x28").shape == (1, 32, 32)


@pytest.mark.parametrize("pixels, dark", [(noise(3, 16, 16) % 2, "0 to 1 of 255"), (noise(3, 16, 16) % 2 == 1, "")])
def test_masks_of_zero_and_one_train_black_and_say_so(saved, pixels, dark):
    notes = open_dataset(saved(pixels)).notes
    assert (dark in notes[0] and "scale them" in notes[0]) if dark else notes == ()
