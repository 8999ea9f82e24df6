"""Samples as PNG files: a grid of images, or a map of where points fall."""

import os
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ganfast.files import replacing


def to_uint8(images: Tensor) -> np.ndarray:
    """[B, C, H, W] in [−1, 1] → uint8 [B, H, W, C]."""
    scaled = images.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).cpu().numpy()


def alike(batches: list[Tensor]) -> list[Tensor]:
    """[B, C, H, W] each → all in colour and of the largest side, so that they can stand in one grid."""
    side = max(batch.shape[-1] for batch in batches)
    wide = [batch.expand(-1, 3, -1, -1) if batch.shape[1] == 1 else batch for batch in batches]
    return [batch if batch.shape[-1] == side else F.interpolate(batch, (side, side)) for batch in wide]


GAP = 2  # pixels between the cells of a grid


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """uint8 [B, H, W, C] → one picture, row by row, on mid-grey that shows between the cells."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * columns, height + GAP, width + GAP, channels), 128, np.uint8)
    canvas[:count, :height, :width] = images
    canvas = canvas.reshape(rows, columns, height + GAP, width + GAP, channels).swapaxes(1, 2)
    return canvas.reshape(rows * (height + GAP), columns * (width + GAP), channels)[:-GAP, :-GAP]


def map_of_points(points: np.ndarray, extent: float, side: int = 200) -> np.ndarray:
    """[N, D] → the first two coordinates over [−extent, extent]² in 2·side pixels, darker where more fall."""
    edges = np.linspace(-extent, extent, side + 1)
    counts, _, _ = np.histogram2d(-points[:, 1], points[:, 0], bins=(edges, edges))
    counts = np.minimum(counts, 4)  # a few points are as visible as many
    return (255 - counts / 4 * 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)[..., None]


def picture_of(samples: Tensor, columns: int | None = None, extent: float = 1.0) -> np.ndarray:
    """Images [B, C, H, W] as a grid (square by default), points [B, D] as a map of ±``extent``: uint8 [H, W, C]."""
    if samples.ndim == 2:
        return map_of_points(samples.detach().float().cpu().numpy(), extent)
    return grid(to_uint8(samples), columns or round(len(samples) ** 0.5))


def as_text(images: np.ndarray, columns: int = 5) -> str:
    """uint8 [B, H, W, C] → lines of 16 × 8 shades an image, for a terminal without pictures; brighter is denser."""
    shades = np.array(list(" ░▒▓█"))
    lines = []
    for start in range(0, len(images), columns):
        row = images[start : start + columns].mean(3)
        count, height, width = row.shape
        cells = row.reshape(count, 8, height // 8, 16, width // 16).mean((2, 4)) / 256 * len(shades)
        text = shades[cells.astype(int)]
        lines += ["".join(text[:, line].ravel()).rstrip() for line in range(8)]
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
