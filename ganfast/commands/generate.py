"""``ganfast generate``: samples as PNGs, a grid, an animation, one array, or text."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ganfast.commands.network import load_generator
from ganfast.errors import InputError
from ganfast.training import pictures, sampling

FRAMES = 16  # from one seed to the next
SHOWN = 256  # images in grid.png beside the pictures of single seeds
MAPPED = 10_000  # points in points.png
MAX_PIXELS = 2**28  # of a grid


@dataclass(kw_only=True)
class Generate:
    """Samples of a trained generator. A seed gives the same sample whatever --batch and the other seeds are."""

    network: Path
    """a run directory or its generator.safetensors"""
    seeds: str = "0-63"
    """one latent per seed: 0-63, or 1,5,9-12"""
    grid: str | None = None
    """columns x rows of one picture, as 8x8; by default every sample has a file of its own besides the grid"""
    interpolate: str | None = None
    """walk through the latents of these seeds, as 3,7,19,3: a strip, and a GIF"""
    npz: bool = False
    """one samples.npz: images uint8 [N, H, W, C] (or points fp32 [N, D]) and seeds int64 [N]"""
    truncation: float | None = None
    """draw latents from the normal cut off at this many standard deviations"""
    batch: int = 64
    """samples in memory at once"""
    outdir: Path = Path("generated")
    """where the pictures go"""
    show: bool = False
    """only draw the samples in the terminal, in shades"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def run(self) -> None:
        job = Job(self)
        if self.show:
            print(job.text())
            return
        try:
            self.outdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.outdir} cannot be made ({error.strerror}): give another --outdir.") from None
        print(f"wrote {job.write()} to {self.outdir}")


def parse_seeds(text: str) -> list[range]:
    """``0-3,9`` → [range(0, 4), range(9, 10)]: a million seeds take no memory."""
    seeds = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            seeds.append(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        raise InputError(f"{text!r} is no list of seeds: give numbers and ranges as in 0-63 or 1,5,9-12.") from None
    if not all(seeds):
        raise InputError(f"{text!r} has a range without a seed: give numbers and ranges as in 0-63 or 1,5,9-12.")
    if max(each[-1] for each in seeds) >= 2**63:
        raise InputError(f"{text!r} has a seed of 2^63 or more: give smaller ones.")
    return seeds


def parse_grid(text: str) -> tuple[int, int]:
    columns, x, rows = text.lower().partition("x")
    if not (x and columns.isdecimal() and rows.isdecimal() and int(columns) and int(rows)):
        raise InputError(f"--grid {text!r} is no grid: give columns x rows, as in 8x8.")
    return int(columns), int(rows)


class Job:
    """What is to be made, checked before anything is written."""

    def __init__(self, options: Generate):
        self.options = options
        kinds = [f"--{name}" for name in ("grid", "interpolate", "npz", "show") if getattr(options, name)]
        if len(kinds) > 1:
            raise InputError(f"{' and '.join(kinds)} make different things: give one of them.")
        if options.batch < 1:
            raise InputError(f"--batch must be at least 1, got {options.batch}.")
        self.seeds = parse_seeds(options.seeds)
        self.count = sum(map(len, self.seeds))
        self.corners = list(chain(*parse_seeds(options.interpolate))) if options.interpolate else []
        if options.interpolate and len(self.corners) < 2:
            raise InputError("--interpolate needs two seeds or more, as in 3,7,19.")
        self.shape = parse_grid(options.grid) if options.grid else None  # columns, rows
        if self.shape and self.shape[0] * self.shape[1] > self.count:
            wanted = self.shape[0] * self.shape[1]
            raise InputError(f"--grid {options.grid} needs {wanted} seeds, --seeds {options.seeds} gives {self.count}.")
        self.generator, self.device = load_generator(options.network, options.device)
        first = sampling.sample(self.generator, self.seeds[0][:1], options.truncation, self.device)[0]
        self.sample_shape, self.of_images = tuple(first.shape), first.ndim == 3
        if kinds and not self.of_images and not options.npz:
            raise InputError(f"{kinds[0]} shows images, and this generator makes points: leave it out.")
        if self.shape:
            columns, rows = self.shape
            height, width = (n * (side + pictures.GAP) for n, side in zip((rows, columns), first.shape[1:]))
            if height * width > MAX_PIXELS:
                raise InputError(f"--grid {options.grid} is a picture of {width}×{height} pixels: give a smaller one.")

    def write(self) -> str:
        """Write the files; returns their names."""
        if self.options.npz:
            return self.archive()
        if self.corners:
            return self.interpolation()
        if not self.of_images:
            return self.points()
        return self.grid() if self.shape else self.singles()

    def batches(self, seeds, count: int) -> Iterator[tuple[list[int], Tensor]]:
        """(seeds, samples) a batch at a time, under a progress bar where it takes longer than a second."""
        options = self.options
        with tqdm(total=count, unit="sample", unit_scale=True, delay=1, leave=False) as bar:
            for part, samples in sampling.batches(
                self.generator, seeds, options.truncation, self.device, options.batch
            ):
                yield part, samples
                bar.update(len(part))

    def first(self, count: int) -> np.ndarray:
        """The images of the first seeds, uint8 [count, H, W, C]."""
        seeds = islice(chain(*self.seeds), count)
        return np.concatenate([pictures.to_uint8(samples) for _, samples in self.batches(seeds, count)])

    def text(self) -> str:
        return pictures.as_text(self.first(self.count))

    def grid(self) -> str:
        columns, rows = self.shape
        pictures.write_png(self.options.outdir / "grid.png", pictures.grid(self.first(columns * rows), columns))
        return "grid.png"

    def singles(self) -> str:
        """seed000000.png and so on, and grid.png of the first ones."""
        shown: list[np.ndarray] = []
        for seeds, samples in self.batches(chain(*self.seeds), self.count):
            images = pictures.to_uint8(samples)
            for seed, image in zip(seeds, images):
                pictures.write_png(self.options.outdir / f"seed{seed:06d}.png", image)
            shown += list(images[: SHOWN - len(shown)])
        pictures.write_png(self.options.outdir / "grid.png", pictures.grid(np.stack(shown), round(len(shown) ** 0.5)))
        of = f" (the first {SHOWN})" if self.count > SHOWN else ""
        return f"{self.count} picture{'s' if self.count > 1 else ''} and grid.png{of}"

    def points(self) -> str:
        """points.npy [N, D], and points.png, a map of the first two coordinates."""
        shown: list[np.ndarray] = []
        with whole(self.options.outdir / "points.npy") as partial, open(partial, "wb") as file:
            write_header(file, (self.count, *self.sample_shape), "<f4")
            for _, samples in self.batches(chain(*self.seeds), self.count):
                file.write(samples.numpy().tobytes())
                shown += list(samples.numpy()[: MAPPED - len(shown)])
        points = np.stack(shown)
        picture = pictures.map_of_points(points, 1.2 * np.abs(points).max())
        pictures.write_png(self.options.outdir / "points.png", picture)
        return "points.npy and points.png"

    def archive(self) -> str:
        """samples.npz as ``numpy.savez`` writes it, a batch at a time."""
        if self.of_images:
            channels, height, width = self.sample_shape
            name, dtype, shape, convert = "images", "|u1", (height, width, channels), pictures.to_uint8
        else:
            name, dtype, shape, convert = "points", "<f4", self.sample_shape, Tensor.numpy
        with whole(self.options.outdir / "samples.npz") as partial, zipfile.ZipFile(partial, "w") as archive:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_header(member, (self.count, *shape), dtype)
                for _, samples in self.batches(chain(*self.seeds), self.count):
                    member.write(convert(samples).tobytes())
            with archive.open("seeds.npy", "w", force_zip64=True) as member:
                write_header(member, (self.count,), "<i8")
                for part in self.seeds:
                    for start in range(0, len(part), 4096):
                        member.write(np.array(part[start : start + 4096], "<i8").tobytes())
        return f"samples.npz with the {name} of {self.count} seeds"

    def interpolation(self) -> str:
        """interpolation.png, a row from each seed to the next, and interpolation.gif."""
        legs = sampling.walk(self.generator, self.corners, self.options.truncation, FRAMES)
        rows = [
            pictures.to_uint8(sampling.decode(self.generator, latents, self.device))
            for latents in tqdm(legs, total=len(self.corners) - 1, unit="leg", delay=1, leave=False)
        ]
        images = np.concatenate(rows)
        pictures.write_png(self.options.outdir / "interpolation.png", pictures.grid(images, FRAMES))
        first, *others = map(pictures.to_image, images)
        with whole(self.options.outdir / "interpolation.gif") as partial:
            first.save(partial, "gif", save_all=True, append_images=others, duration=60, loop=0)
        return "interpolation.png and interpolation.gif"


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Another name to write to, which becomes ``file`` when all is written."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_header(file, shape: tuple[int, ...], dtype) -> None:
    """The start of a .npy file in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
