"""Samples as PNG files: a grid of images, or a map of where points fall."""

import colorsys
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast.data import Spec
from ganfast.files import replacing


def to_uint8(images: Tensor) -> np.ndarray:
    """[B, C, H, W] in [−1, 1] → uint8 [B, H, W, C]."""
    scaled = images.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).cpu().numpy()


def alike(batches: list[Tensor]) -> list[Tensor]:
    """[B, C, H, W] each → all in colour and of the largest height and width, so that they can stand in one grid."""
    sides = tuple(max(batch.shape[axis] for batch in batches) for axis in (2, 3))
    wide = [batch.expand(-1, 3, -1, -1) if batch.shape[1] == 1 else batch for batch in batches]
    return [batch if batch.shape[2:] == sides else fitted(batch, *sides) for batch in wide]


def fitted(images: Tensor, height: int, width: int) -> Tensor:
    """[B, C, H, W] enlarged until one side fits, in the middle of a mid-grey [B, C, height, width]."""
    scale = min(height / images.shape[2], width / images.shape[3])
    tall, across = (round(side * scale) for side in images.shape[2:])
    top, left = (height - tall) // 2, (width - across) // 2
    scaled = F.interpolate(images, (tall, across))
    return F.pad(scaled, (left, width - across - left, top, height - tall - top))  # 0 is mid-grey


def of_given(values: Tensor, spec: Spec) -> Tensor:
    """Images [B, C, H, W] as they are; of maps [B, H, W] a colour for each class, the first one black."""
    if spec.kind != "maps":
        return values
    hues = [colorsys.hsv_to_rgb(k / max(spec.classes - 1, 1), 0.7, 1.0) for k in range(spec.classes - 1)]
    colours = torch.tensor([(0.0, 0.0, 0.0), *hues]) * 2 - 1
    return colours[values].movedim(3, 1)


GAP = 2  # pixels between the cells of a grid
SMALL = 32  # grids of images whose shorter side is this or less are shown at twice their size


def enlargement(height: int, width: int) -> int:
    """How many times its size an image is shown in a grid."""
    return 2 if min(height, width) <= SMALL else 1


def grid_size(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the picture that ``grid`` makes of images of height × width."""
    times = enlargement(height, width)
    return times * (rows * (height + GAP) - GAP), times * (columns * (width + GAP) - GAP)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 [B, H, W, C] → one picture, row by row, on mid-grey that shows between the cells; small ones at 2×."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * columns, height + GAP, width + GAP, channels), 128, np.uint8)
    canvas[:count, :height, :width] = images
    canvas = canvas.reshape(rows, columns, height + GAP, width + GAP, channels).swapaxes(1, 2)
    picture = canvas.reshape(rows * (height + GAP), columns * (width + GAP), channels)[:-GAP, :-GAP]
    times = enlargement(height, width)
    return picture.repeat(times, 0).repeat(times, 1) if times > 1 else picture


def counts_of(points: np.ndarray, extent: float, side: int) -> np.ndarray:
    """[N, D] → how many fall in each cell [side, side] of [−extent, extent]², by the first two coordinates; 0 where
    there is one only."""
    x, y = points[:, 0], points[:, 1] if points.shape[1] > 1 else np.zeros(len(points))
    edges = np.linspace(-extent, extent, side + 1)
    return np.histogram2d(-y, x, bins=(edges, edges))[0]


def map_of_points(points: np.ndarray, extent: float, side: int = 200) -> np.ndarray:
    """[N, D] → the first two coordinates over [−extent, extent]² in 2·side pixels, darker where more fall."""
    counts = np.minimum(counts_of(points, extent, side), 4)  # a few points are as visible as many
    return (255 - counts / 4 * 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)[..., None]


def picture_of(samples: Tensor, columns: int | None = None, extent: float = 1.0) -> np.ndarray:
    """Images [B, C, H, W] as a grid (square by default), points [B, D] as a map of ±``extent``: uint8 [H, W, C]."""
    if samples.ndim == 2:
        return map_of_points(samples.detach().float().cpu().numpy(), extent)
    return grid(to_uint8(samples), columns or round(len(samples) ** 0.5))


LINES, COLUMNS = 8, 16  # characters of a square image, which are twice as high as wide


def as_text(images: np.ndarray, columns: int | None = None) -> str:
    """uint8 [B, H, W, C] → shades for a terminal without pictures, brighter is denser: 8 lines of 16, for the shorter
    side; ``columns`` images beside one another, by default as many as 80 characters have room for."""
    shades = np.array(list(" ░▒▓█"))
    _, height, width, _ = images.shape
    short = min(height, width)
    tall, wide = LINES * height // short, COLUMNS * width // short
    columns = columns or max(80 // wide, 1)
    lines = []
    for start in range(0, len(images), columns):
        row = images[start : start + columns].mean(3)
        cells = row.reshape(len(row), tall, height // tall, wide, width // wide).mean((2, 4)) / 256 * len(shades)
        text = shades[cells.astype(int)]
        lines += ["".join(text[:, line].ravel()).rstrip() for line in range(tall)]
    return "\n".join(lines)


def to_image(picture: np.ndarray):
    """uint8 [H, W, C] with C = 1 or 3 → a Pillow image, other numbers of channels side by side in grey."""
    from PIL import Image

    if picture.shape[2] not in (1, 3):
        picture = np.concatenate(np.moveaxis(picture, 2, 0), 1)[..., None]
    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)


def write_png(path: str | os.PathLike, picture: np.ndarray) -> None:
    """uint8 [H, W, C] → PNG as :func:`to_image` makes it; replaced as a whole."""
    with replacing(Path(path), durable=False) as partial:
        to_image(picture).save(partial, "png")
