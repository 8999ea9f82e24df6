import numpy as np
import pytest
import torch
from PIL import Image

from ganfast.training import pictures


def test_grid_places_images_row_by_row():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    doubled = pictures.grid(images, columns=3)
    picture = doubled[::2, ::2]
    assert np.array_equal(doubled, picture.repeat(2, 0).repeat(2, 1))
    large = pictures.grid(images.repeat(20, 1).repeat(20, 2), columns=3)
    assert large.shape[:2] == (2 * 40 + pictures.GAP, 3 * (60 + pictures.GAP) - pictures.GAP)
    assert doubled.shape[:2] == pictures.grid_size(2, 3, 2, 3) and large.shape[:2] == pictures.grid_size(2, 3, 40, 60)
    assert picture.shape == (2 + pictures.GAP + 2, 3 * (3 + pictures.GAP) - pictures.GAP, 1)
    assert picture[:: 2 + pictures.GAP, :: 3 + pictures.GAP, 0].tolist() == [[0, 1, 2], [3, 4, 128]]


def test_to_uint8_maps_the_ends_and_clips():
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5)
    assert pictures.to_uint8(images).ravel().tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("channels, mode, size", [(1, "L", (4, 2)), (3, "RGB", (4, 2)), (5, "L", (20, 2))])
def test_png_comes_back(channels, mode, size, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (2, 4, channels), np.uint8)
    pictures.write_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, image.size) == (mode, size)
        if channels < 5:
            assert np.array_equal(np.asarray(image).reshape(picture.shape), picture)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_text_has_the_shades_of_the_picture():
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[0, :8], images[1, :, :8] = 255, 130
    assert pictures.as_text(images).splitlines() == ["█" * 16 + "▒" * 8] * 4 + [" " * 16 + "▒" * 8] * 4


def test_points_fall_where_they_are():
    picture = pictures.map_of_points(np.array([[0.95, 0.95]] * 4), extent=1.0, side=10)  # top right
    assert picture.shape == (20, 20, 1)
    assert np.argwhere(picture[..., 0] == 0).tolist() == [[0, 18], [0, 19], [1, 18], [1, 19]]
