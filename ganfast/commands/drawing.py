"""Samples that are drawn from seeds, and of classes where the recipe is given labels."""

import zipfile
from collections.abc import Callable, Iterator
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ganfast.commands import latent_space, network
from ganfast.commands.choices import parse_classes, parse_grid, parse_seeds
from ganfast.commands.generate import LATENT_SPACE, Generate
from ganfast.commands.outputs import SAMPLES, Outputs
from ganfast.errors import InputError
from ganfast.files import replacing
from ganfast.recipes import Trained
from ganfast.training import pictures, sampling

FEW = 16  # classes that are all shown when nobody names some
SHOWN = 256  # images in grid.png beside the pictures of single seeds
ROWS = 64  # samples in strip.png
MAPPED = 10_000  # points in points.png
MAX_PIXELS = 2**28  # of a grid

Pair = tuple[int, int]  # class (0 where there are none) and seed


class Drawing:
    """What is to be made, checked before anything is written."""

    def __init__(self, options: Generate, trained: Trained):
        self.options, self.trained, self.recipe = options, trained, trained.recipe.name
        self.label = network.conditions(trained).get("labels")
        self.of_labels = trained.given[self.label].classes if self.label else 0
        if not self.label:
            options.refuse(f"recipe {self.recipe} is not given labels", "classes")
        if not trained.latent_dim:
            options.refuse(f"recipe {self.recipe} draws no latents", "seeds", *LATENT_SPACE, "truncation")
        if not trained.can("strip"):
            options.refuse(f"recipe {self.recipe} makes its samples at once, and no pairs", "strip")
        self.latents, self.of_latents = latent_space.read(options, trained) if options.latents else (None, None)
        self.shape = parse_grid(options.grid) if options.grid else None  # columns, rows
        self.classes, self.seeds = self.chosen()
        self.per_class = sum(map(len, self.seeds))
        self.count = self.per_class * (len(self.classes) if self.classes else 1)
        if self.shape and self.shape[0] * self.shape[1] > self.count:
            of = f" and {len(self.classes)} of the classes" if self.classes else ""
            raise InputError(
                f"--grid {options.grid} needs {self.shape[0] * self.shape[1]} samples, {self.per_class} seeds{of} give "
                f"{self.count}: give more --seeds."
            )
        first = self.draw(list(islice(self.pairs(), 1)))[0]
        self.sample_shape, self.of_images, self.of_points = tuple(first.shape), first.ndim == 3, first.ndim == 1
        self.check_shape()

    def chosen(self) -> tuple[list[int] | None, list[range]]:
        """(classes, each of which has all seeds; the seeds). None: each seed has a class in turn, if any."""
        options = self.options
        classes = (
            parse_classes(options.classes, self.trained.given[self.label].names)
            if options.classes is not None
            else None
        )
        alone = not any(getattr(options, name) for name in ("seeds", "grid", "npz", *LATENT_SPACE))
        if classes is None and alone and 0 < self.of_labels <= FEW:
            classes = list(range(self.of_labels))
        if options.seeds:
            return classes, parse_seeds(options.seeds)
        if classes and not self.trained.latent_dim:
            return classes, [range(1)]
        if classes and self.shape:
            return classes, [range(-(-self.shape[0] * self.shape[1] // len(classes)))]
        return classes, [range(8 if options.strip or (classes and not options.npz) else 64)]

    def check_shape(self) -> None:
        """Refuse what cannot be made of samples of this shape."""
        options = self.options
        if not self.of_images:
            what = "points" if self.of_points else f"samples of {'×'.join(map(str, self.sample_shape))}"
            why = f"it shows images, and recipe {self.recipe} makes {what}"
            options.refuse(why, "grid", "strip", *LATENT_SPACE, "show")
            if not self.of_points and not options.npz:
                raise InputError(f"recipe {self.recipe} makes {what}, which are no pictures: give --npz.")
        if self.shape:
            columns, rows = self.shape
            height, width = pictures.grid_size(rows, columns, *self.sample_shape[1:])
            if height * width > MAX_PIXELS:
                raise InputError(f"--grid {options.grid} is a picture of {width}×{height} pixels: give a smaller one.")

    # -- samples ---------------------------------------------------------------------------------------------------

    def pairs(self) -> Iterator[Pair]:
        """(class, seed) of each sample, class by class; without end in memory."""
        if self.classes is None:
            return ((seed % max(self.of_labels, 1), seed) for seed in chain(*self.seeds))
        return ((k, seed) for k in self.classes for seed in chain(*self.seeds))

    def draw(self, pairs: list[Pair], make: Callable[..., Tensor] = sampling.sample) -> Tensor:
        seeds = [seed for _, seed in pairs]
        given = sampling.fill(self.trained, seeds)
        if self.label:
            given[self.label] = torch.tensor([k for k, _ in pairs])
        return make(self.trained, seeds, self.options.truncation, given)

    def batches(self, count: int) -> Iterator[tuple[list[Pair], Tensor]]:
        """The first ``count`` samples, a batch at a time, under a progress bar where it takes longer than a second."""
        pairs = islice(self.pairs(), count)
        with tqdm(total=count, unit="sample", unit_scale=True, delay=1, leave=False) as bar:
            while part := list(islice(pairs, self.options.batch)):
                yield part, self.draw(part)
                bar.update(len(part))

    def first(self, count: int) -> np.ndarray:
        """The first images, uint8 [count, H, W, C]."""
        return np.concatenate([pictures.to_uint8(samples) for _, samples in self.batches(count)])

    # -- what is made of them ----------------------------------------------------------------------------------------

    def plan(self) -> tuple[tuple[str, ...], Callable[[Outputs], str]]:
        """(the files by the names that Outputs knows, what writes them and says which)."""
        if self.options.npz:
            return ("samples.npz",), self.archive
        if between := latent_space.plan(self):
            return between
        if self.of_points:
            return ("points.npy", "points.png")[: self.sample_shape[0]], self.points  # one coordinate makes no map
        if self.options.strip:
            return ("strip.png",), self.strip
        return (("grid.png",), self.grid) if self.shape else ((SAMPLES, "grid.png"), self.singles)

    def files(self) -> tuple[str, ...]:
        """What ``write`` will write."""
        return self.plan()[0]

    def write(self, out: Outputs) -> str:
        """Write the files; says which."""
        return self.plan()[1](out)

    def text(self) -> str:
        return pictures.as_text(
            self.first(self.count), self.per_class if self.classes and self.per_class <= 8 else None
        )

    def grid(self, out: Outputs) -> str:
        columns, rows = self.shape
        picture = pictures.grid(self.first(columns * rows), columns)
        file = out.path("grid.png")
        pictures.write_png(file, picture)
        return str(file)

    def strip(self, out: Outputs) -> str:
        """strip.png: a row for each of the first samples, a column for each step."""
        steps = self.draw([*islice(self.pairs(), ROWS)], sampling.strip)
        file = out.path("strip.png")
        pictures.write_png(file, pictures.picture_of(steps.flatten(0, 1), steps.shape[1]))
        return f"{file}: {len(steps)} samples" + f" (the first of {self.count})" * (self.count > len(steps))

    def singles(self, out: Outputs) -> str:
        """A file of each sample, and grid.png of the first ones: a row for each class, a column for each seed."""
        columns, rows = self.table()
        shown: list[np.ndarray] = []
        for start, (pairs, samples) in zip(range(0, self.count, self.options.batch), self.batches(self.count)):
            images = pictures.to_uint8(samples)
            for at, pair, image in zip(range(start, self.count), pairs, images):
                pictures.write_png(out.sample(f"{self.name(*pair)}.png"), image)
                row, column = divmod(at, self.per_class if self.classes else columns)
                if row < rows and column < columns and len(shown) < SHOWN:
                    shown.append(image)
        file = out.path("grid.png")
        pictures.write_png(file, pictures.grid(np.stack(shown), columns))
        some = ""
        if self.count > len(shown):
            some = f" ({len(shown)} of them)" if self.classes else f" (the first {len(shown)})"
        return f"{self.count} picture{'s' if self.count > 1 else ''} to {out.outdir / SAMPLES}, and {file}{some}"

    def table(self) -> tuple[int, int]:
        """(columns, rows) of the grid beside single pictures."""
        if self.classes:
            rows = min(len(self.classes), SHOWN)
            return min(self.per_class, SHOWN // rows), rows
        if 0 < self.of_labels <= FEW:  # classes in turn: a column for each, where the seeds begin at a multiple
            return min(self.of_labels, self.count), SHOWN
        return round(min(self.count, SHOWN) ** 0.5), SHOWN

    def name(self, k: int, seed: int) -> str:
        """``seed000003``, ``class7-seed000003``."""
        words = [f"class{k:0{len(str(self.of_labels - 1))}d}"] if self.label else []
        return "-".join(words + ([f"seed{seed:06d}"] if self.trained.latent_dim or not words else []))

    def points(self, out: Outputs) -> str:
        """points.npy [N, D], and points.png, a map of the first two coordinates."""
        shown: list[np.ndarray] = []
        array = out.path("points.npy")
        with replacing(array) as partial, open(partial, "wb") as file:
            write_header(file, (self.count, *self.sample_shape), "<f4")
            for _, samples in self.batches(self.count):
                file.write(samples.numpy().tobytes())
                shown += list(samples.numpy()[: MAPPED - len(shown)])
        if self.sample_shape[0] < 2:
            return str(array)
        points = np.stack(shown)
        picture = pictures.map_of_points(points, 1.2 * np.abs(points).max())
        file = out.path("points.png")
        pictures.write_png(file, picture)
        return f"{array} and {file}"

    def archive(self, out: Outputs) -> str:
        """samples.npz as ``numpy.savez`` writes it, a batch at a time."""
        if self.of_images:
            channels, height, width = self.sample_shape
            name, dtype, shape, convert = "images", "|u1", (height, width, channels), pictures.to_uint8
        else:
            name, dtype, shape, convert = "points" if self.of_points else "samples", "<f4", self.sample_shape, as_fp32
        numbers = {"labels": 0} if self.label else {}
        numbers |= {"seeds": 1} if self.trained.latent_dim else {}
        file = out.path("samples.npz")
        with replacing(file) as partial, zipfile.ZipFile(partial, "w") as archive:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_header(member, (self.count, *shape), dtype)
                for _, samples in self.batches(self.count):
                    member.write(convert(samples).tobytes())
            for each, place in numbers.items():
                with archive.open(f"{each}.npy", "w", force_zip64=True) as member:
                    write_header(member, (self.count,), "<i8")
                    pairs = self.pairs()
                    while part := list(islice(pairs, 4096)):
                        member.write(np.array([pair[place] for pair in part], "<i8").tobytes())
        of = f"{self.count} seeds"
        if self.classes:
            of = f"{self.per_class} seeds in each of {len(self.classes)} classes"
        return f"{file} with the {' and '.join([name, *filter('labels'.__eq__, numbers)])} of {of}"


def as_fp32(samples: Tensor) -> np.ndarray:
    return samples.float().numpy()


def write_header(file, shape: tuple[int, ...], dtype) -> None:
    """The start of a .npy file in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
