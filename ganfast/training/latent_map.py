"""Codes of two numbers as a picture: where an encoder puts real samples, over the prior that they should fill."""

import colorsys

import numpy as np
from torch import Tensor

from ganfast.data import Dataset
from ganfast.data.sampler import drawn
from ganfast.models import latents
from ganfast.recipes import Trained
from ganfast.training import sampling
from ganfast.training.landscape import LOW, SIDE, blend, dots

ROWS, DRAWS = 5_000, 10_000  # codes and draws of the prior that are shown
PRIOR, ONLY = (190, 190, 190), (60, 110, 170)  # colours


def has_plane(trained: Trained) -> bool:
    """Whether it encodes in two numbers."""
    return trained.can("encode") and trained.latent_dim == 2


def picture(trained: Trained, data: Dataset) -> np.ndarray:
    """uint8 [2·SIDE, 2·SIDE, 3]: codes of ``data`` coloured by label, with its name, over the prior in grey."""
    rows = drawn(data, ROWS)
    codes = sampling.of_data(trained, trained.encode, data, rows, "codes").float()
    prior = trained.recipe.code_of(latents(range(DRAWS), 2))
    labels = None if data.labels is None else data.labels[rows]
    return draw(codes.numpy(), prior.numpy(), labels, data.names.get("labels", ()))


def draw(codes: np.ndarray, prior: np.ndarray, labels: Tensor | None, names: tuple[str, ...]) -> np.ndarray:
    """``codes`` and draws of the ``prior``, [N, 2]; ``labels`` [N] of the codes."""
    from PIL import Image, ImageDraw

    finite = np.abs(codes[np.isfinite(codes).all(1)])
    extent = 1.05 * max(np.quantile(np.abs(prior), 0.999), np.quantile(finite, 0.99) if len(finite) else 0)
    canvas = np.full((SIDE, SIDE, 3), LOW, np.float32)
    blend(canvas, dots(prior, extent, 1, 0.15), PRIOR)
    groups = [codes] if labels is None else [codes[labels.numpy() == k] for k in range(len(names))]
    for k, group in enumerate(groups):
        blend(canvas, dots(group, extent, 1, 0.5), ONLY if labels is None else colour(k, len(groups)))
    image = Image.fromarray(canvas.round().astype(np.uint8)).resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    for name, group in zip(names if labels is not None else (), groups):
        if len(group):
            x, y = SIDE * (1 + np.median(group, 0) * (1, -1) / extent)
            pen.text((x, y), name, fill=(0, 0, 0), font_size=22, anchor="mm", stroke_width=2, stroke_fill=LOW)
    return np.asarray(image)


def colour(k: int, count: int) -> tuple[int, int, int]:
    """The k-th of ``count`` hues, every second one darker."""
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(k / count, 0.85, 0.95 if k % 2 else 0.7))
