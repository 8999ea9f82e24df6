"""Arrays of images or points: layouts, types, ranges, and what is refused."""

import numpy as np
import pytest
import torch

from ganfast.data import open_dataset
from ganfast.errors import InputError


def noise(*shape):
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "shape, axes",
    [
        ((5, 16, 16), None),
        ((5, 16, 16, 1), (0, 1, 2, 3)),
        ((5, 16, 16, 3), (0, 1, 2, 3)),
        ((5, 1, 16, 16), (0, 2, 3, 1)),
        ((5, 3, 16, 16), (0, 2, 3, 1)),
        ((5, 16, 16, 4), (0, 1, 2, 3)),
        ((5, 2, 16, 16), (0, 2, 3, 1)),
    ],
)
def test_layouts(saved, shape, axes):
    array = noise(*shape)
    expected = array[..., None] if axes is None else array.transpose(axes)
    data = open_dataset(saved(array))
    np.testing.assert_array_equal(data.samples.numpy(), expected)
    assert data.name == "some-data" and data.labels is None


@pytest.mark.parametrize(
    "array, expected",
    [
        (np.array([False, True]), [0, 255]),
        (np.array([0, 128, 129, 65535], np.uint16), [0, 0, 1, 255]),
        (np.array([0, 129, 65535], ">u2"), [0, 1, 255]),
        (np.array([0, 0.25, 1], np.float32), [0, 64, 255]),
        (np.array([-1, 0.5, 1], np.float64), [0, 191, 255]),
        (np.array([-1, 0, 1], np.float16), [0, 128, 255]),
        (np.array([-1e-4, 1 + 1e-4]), [0, 255]),
    ],
)
def test_types_and_ranges(saved, array, expected):
    images = np.zeros((1, 16, 16), array.dtype) + array[0]
    images[0, 0, : len(array)] = array
    data = open_dataset(saved(images.astype(array.dtype)))
    assert data.samples.dtype == torch.uint8
    assert data.samples[0, 0, : len(array), 0].tolist() == expected


@pytest.mark.parametrize("low, high", [(0.5, 255), (0, 256), (-3, 3), (-1, 1.1)])
def test_floats_of_another_range_are_refused_with_it(saved, low, high):
    images = np.full((2, 16, 16), low, np.float32)
    images[1, 3, 3] = high
    with pytest.raises(InputError, match=rf"data\.npy: values from {low} to {high}.*\[0, 1\] or \[-1, 1\]"):
        open_dataset(saved(images))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(3, 16, 16), (5, 2)])
def test_nan_and_infinity_are_refused(saved, bad, shape):
    array = np.zeros(shape, np.float32)
    array[2, 1] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        open_dataset(saved(array))


def test_a_uint8_npy_of_the_right_size_stays_on_disk(saved):
    path = saved(noise(4, 16, 16, 3))
    data = open_dataset(path)
    with open(path, "r+b") as file:  # a private map shows what the file says
        file.seek(-1, 2)
        last = data.samples[-1, -1, -1, -1].item()
        assert file.read() == bytes([last])
    assert "memmap" in repr(type(np.load(path, mmap_mode="c")))
    data.samples[0] = 0
    assert np.load(path)[0].any()  # writing to samples does not reach the file


def test_sizes_and_channels(saved):
    path = saved(noise(2, 20, 30, 3))
    assert open_dataset(path).shape == (3, 16, 16)
    assert open_dataset(path, size=64, channels=1).shape == (1, 64, 64)
    grey = saved(noise(2, 16, 16))
    np.testing.assert_array_equal(
        open_dataset(grey, channels=3).samples.numpy(), noise(2, 16, 16)[..., None].repeat(3, 3)
    )
    odd = saved(noise(2, 20, 20, 5))
    assert open_dataset(odd, size=32).shape == (5, 32, 32)
    with pytest.raises(InputError, match="has 5 channels"):
        open_dataset(odd, channels=3)


def test_points(saved):
    points = np.random.default_rng(0).standard_normal((50, 3))
    data = open_dataset(saved(x=points, y=np.arange(50)))
    assert (data.kind, data.shape, data.num_classes) == ("points", (3,), 50)
    np.testing.assert_array_equal(data.samples.numpy(), points.astype(np.float32))
    with pytest.raises(InputError, match="holds points"):
        open_dataset(saved(points), size=32)


@pytest.mark.parametrize(
    "array, reason",
    [
        (np.zeros((0, 16, 16), np.uint8), "empty"),
        (np.zeros((0, 2), np.float32), "shape"),
        (np.full((3, 16, 16), -1), "values from -1 to -1"),
        (np.full((3, 16, 16), 65536), "values from 65536"),
        (np.zeros((3, 16, 16), np.complex64), "type complex64"),
        (np.zeros((3, 4, 16), np.uint8), "16×4 pixels"),
        (np.zeros((3, 2), np.int64), "rows of 2 numbers"),
        (np.zeros(3, np.float32), "points are floats"),
        (np.zeros((), np.float32), "points are floats"),
        (np.zeros((2, 16, 16, 16), np.uint8), "shape"),
        (np.zeros((2, 3, 16, 16, 1), np.uint8), "shape"),
        (np.array([{}, []], dtype=object), "Python objects"),
    ],
)
def test_other_arrays_are_refused(saved, array, reason):
    with pytest.raises(InputError, match=rf"some data\.npy: .*{reason}"):
        open_dataset(saved(array))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("keep", [0, 5, 200])
def test_truncated_files(saved, suffix, keep):
    path = saved(noise(9, 16, 16)) if suffix == "npy" else saved(x=noise(9, 16, 16))
    with open(path, "r+b") as file:
        file.truncate(keep)
    with pytest.raises(InputError, match=rf"data\.{suffix}: a damaged array file"):
        open_dataset(path)
