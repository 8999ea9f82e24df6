"""What lies between the latents of seeds, and what their means add up to."""

import functools
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ganfast import models
from ganfast.commands.choices import parse_arithmetic, parse_seeds
from ganfast.commands.outputs import Outputs
from ganfast.errors import InputError
from ganfast.files import replacing
from ganfast.recipes import Trained
from ganfast.training import pictures, sampling
from ganfast.training.sampling import slerp

if TYPE_CHECKING:
    from ganfast.commands.drawing import Drawing
    from ganfast.commands.generate import Generate

FRAMES = 16  # from one seed to the next
SIDE = 8  # images along a side of the grid between four seeds
NEAR = 0.25  # the largest change of a number of the result's latents


def plan(drawing: "Drawing") -> tuple[tuple[str, ...], Callable[[Outputs], str]] | None:
    """(the files, what writes them and says which) where an option of LATENT_SPACE is given, else None."""
    for given, files, make in (
        (drawing.options.interpolate, ("interpolation.png", "interpolation.gif"), walk),
        (drawing.options.interpolate_grid, ("interpolation-grid.png",), between_four),
        (drawing.options.arithmetic, ("arithmetic.png",), arithmetic),
    ):
        if given:
            return files, functools.partial(make, drawing)
    return None


def seeds_of(text: str) -> list[int]:
    return [*chain(*parse_seeds(text))]


def classes_of(drawing: "Drawing", seed: int) -> list[int]:
    """The classes to draw one after another: those that were named, else the one that ``seed`` or this row has."""
    if drawing.of_latents is not None and not drawing.classes:
        return [int(drawing.of_latents[seed])]
    return drawing.classes or [seed % max(drawing.of_labels, 1)]


def read(options: "Generate", trained: Trained) -> tuple[Tensor, Tensor | None]:
    """(codes [N, n], classes [N] or None) of --latents; ``InputError`` where they are not of this recipe."""
    options.refuse("it is for latents that are drawn, and --latents names some", "truncation")
    try:
        with np.load(options.latents, allow_pickle=False) as arrays:
            codes = torch.from_numpy(arrays["codes"]).float()
            classes = torch.from_numpy(arrays["classes"]).long() if "classes" in arrays else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"--latents {options.latents} cannot be read ({error}): give the latents.npz of ganfast project."
        ) from None
    size = sampling.codes_of(trained, [0]).shape[1]
    if codes.ndim != 2 or codes.shape[1] != size or not (classes is None or len(classes) == len(codes)):
        raise InputError(
            f"--latents {options.latents} has codes {list(codes.shape)}, and those of this recipe have {size} numbers: "
            "give those of this run."
        )
    groups = [(1, seeds_of(text)) for text in (options.interpolate, options.interpolate_grid) if text]
    groups += parse_arithmetic(options.arithmetic) if options.arithmetic else []
    for row in chain(*(rows for _, rows in groups)):
        if row >= len(codes):
            raise InputError(f"--latents {options.latents} has the rows 0 to {len(codes) - 1}, and not {row}.")
    return codes, classes


def latents(drawing: "Drawing", seeds: list[int]) -> Tensor:
    if drawing.latents is not None:
        return drawing.latents[seeds]
    return models.latents(seeds, drawing.trained.latent_dim, drawing.options.truncation)


def images(drawing: "Drawing", z: Tensor, k: int) -> np.ndarray:
    """uint8 [N, H, W, C] of latents z [N, latent_dim], all of class ``k``."""
    given = sampling.fill(drawing.trained, [k] * len(z))
    if drawing.latents is not None:
        return pictures.to_uint8(sampling.decode_codes(drawing.trained, z, given))
    return pictures.to_uint8(sampling.decode(drawing.trained, {"z": z, **given}))


def walk(drawing: "Drawing", out: Outputs) -> str:
    """interpolation.png, a row from each seed to the next, and interpolation.gif; class by class."""
    seeds = seeds_of(drawing.options.interpolate)
    classes = classes_of(drawing, seeds[0])
    t = torch.linspace(0, 1, FRAMES)
    legs = [(k, a, b) for k in classes for a, b in pairwise(latents(drawing, seeds))]
    made = [images(drawing, slerp(a, b, t), k) for k, a, b in tqdm(legs, unit="leg", delay=1, leave=False)]
    frames = np.concatenate(made)
    strip, film = out.path("interpolation.png"), out.path("interpolation.gif")
    pictures.write_png(strip, pictures.grid(frames, FRAMES))
    first, *others = map(pictures.to_image, frames)
    with replacing(film) as partial:
        first.save(partial, "gif", save_all=True, append_images=others, duration=60, loop=0)
    return f"{strip} and {film}"


def between_four(drawing: "Drawing", out: Outputs) -> str:
    """interpolation-grid.png: the four seeds in the corners, row by row, on great circles between them; below one
    another for several classes."""
    seeds = seeds_of(drawing.options.interpolate_grid)
    z = torch.cat([*rows_between(*latents(drawing, seeds))])
    made = [images(drawing, z, k) for k in classes_of(drawing, seeds[0])]
    file = out.path("interpolation-grid.png")
    pictures.write_png(file, pictures.grid(np.concatenate(made), SIDE))
    return str(file)


def rows_between(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Iterator[Tensor]:
    """SIDE rows [SIDE, n]: from a to b in the first, from c to d in the last."""
    t = torch.linspace(0, 1, SIDE)
    for left, right in zip(slerp(a, c, t), slerp(b, d, t)):
        yield slerp(left, right, t)


def arithmetic(drawing: "Drawing", out: Outputs) -> str:
    """arithmetic.png: a row for each group, its samples and at the right end that of its mean; below, 3×3, the sum of
    the means in the middle of eight with uniform noise of ±NEAR in each number of z (Radford et al. 2015, figure 7)."""
    terms = parse_arithmetic(drawing.options.arithmetic)
    groups = [latents(drawing, seeds) for _, seeds in terms]
    result = sum(sign * z.mean(0) for (sign, _), z in zip(terms, groups))
    noise = torch.empty(9, len(result)).uniform_(-NEAR, NEAR, generator=torch.Generator().manual_seed(0))
    noise[4] = 0
    rows = [*(torch.cat([z, z.mean(0, keepdim=True)]) for z in groups), *(result + noise).split(3)]
    columns = max(map(len, rows))
    file = out.path("arithmetic.png")
    tables = [table(images(drawing, torch.cat(rows), k), rows, columns) for k in classes_of(drawing, terms[0][1][0])]
    pictures.write_png(file, pictures.grid(np.concatenate(tables), columns))
    return f"{file}: the seeds of each group and their mean, and below {drawing.options.arithmetic.strip()}"


def table(made: np.ndarray, rows: list[Tensor], columns: int) -> np.ndarray:
    """The images of ``rows``, one after another → [cells, H, W, C]: means in the last column, an empty row before the
    result; an empty cell has the grey of the grid."""
    cells = np.full(((len(rows) + 1) * columns, *made.shape[1:]), 128, np.uint8)
    at = 0
    for number, row in enumerate(rows):
        of_group = number < len(rows) - 3
        start = (number if of_group else number + 1) * columns
        places = [start + k for k in range(len(row))]
        if of_group:
            places[-1] = start + columns - 1
        cells[places] = made[at : at + len(row)]
        at += len(row)
    return cells
