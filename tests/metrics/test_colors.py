"""CIE L*a*b*, and how far apart the colours of two sets are."""

import pytest
import torch

from ganfast.metrics.colors import distance, lab


def plain(*rgb) -> torch.Tensor:
    return (torch.tensor(rgb) / 127.5 - 1).view(1, 3, 1, 1).expand(1, 3, 4, 4)


@pytest.mark.parametrize(
    "rgb, wanted",
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((10, 10, 10), (2.74, 0, 0)),  # the linear parts of both curves
    ],
)
def test_known_colors(rgb, wanted):
    assert lab(plain(*rgb))[0, :, 0, 0].tolist() == pytest.approx(wanted, abs=0.02)


def test_colors_are_those_of_scikit_image():
    color = pytest.importorskip("skimage.color", reason="needs scikit-image")
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    wanted = color.rgb2lab(((images + 1) / 2).permute(0, 2, 3, 1).numpy())
    torch.testing.assert_close(lab(images).permute(0, 2, 3, 1), torch.from_numpy(wanted).float(), atol=0.02, rtol=0)


def test_places_do_not_count_and_colors_do():
    images = torch.rand(20, 3, 8, 8) * 2 - 1
    mixed = images.flatten(2).permute(0, 2, 1).reshape(-1, 3)[torch.randperm(20 * 64)]
    mixed = mixed.view(20, 8, 8, 3).permute(0, 3, 1, 2)
    assert distance(images, mixed) == pytest.approx(0, abs=1e-9)
    by_sorting = (lab(images).transpose(0, 1).flatten(1).sort().values
                  - lab(images * 0.5).transpose(0, 1).flatten(1).sort().values).abs().mean()  # fmt: skip
    assert distance(images * 0.5, images) == pytest.approx(by_sorting.item(), abs=0.15)
    grey = torch.zeros(1, 1, 4, 4)
    assert distance(grey, grey) == 0
    assert distance(plain(255, 255, 255), plain(0, 0, 0)) == pytest.approx(100 / 3, abs=0.4)
