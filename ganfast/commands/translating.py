"""Samples that are made of pictures: translations, or reconstructions."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ganfast import models
from ganfast.commands import network
from ganfast.commands.choices import parse_attributes, parse_classes, parse_seeds
from ganfast.commands.drawing import FEW, SHOWN
from ganfast.commands.generate import LATENT_SPACE, Generate
from ganfast.commands.outputs import SAMPLES, Outputs, refuse_as_data
from ganfast.data import Spec
from ganfast.data.attributes import switched, titles
from ganfast.data.full_size import FullSize
from ganfast.data.options import is_size, parse_size, size_word
from ganfast.data.sampler import decode
from ganfast.data.sources import exists, open_full_size, open_titled
from ganfast.errors import InputError
from ganfast.recipes import Trained
from ganfast.training import pictures, sampling

ARRAYS = (".npy", ".npz", ".safetensors")  # data sets in one file, whose rows have no names
ACROSS = 8  # images in a row of the grid, about
LARGEST = 256  # pixels a side of what the grid shows
TEXT = 64  # and of what a terminal does


class Translating:
    """One output per picture of --input (and per seed and class, where the recipe has them), checked before writing.

    Pictures have the size of the training, or where the network is fully convolutional their own, which is read from
    ``files`` one at a time, until these are closed.
    """

    def __init__(self, options: Generate, trained: Trained, files: ExitStack):
        self.options, self.trained, recipe = options, trained, trained.recipe.name
        kinds = network.conditions(trained)
        self.given = kinds.get("images") or kinds.get("maps")
        self.label, self.attribute = kinds.get("labels"), kinds.get("attributes")
        if self.given is None and not trained.can("reconstruct"):
            options.refuse(f"recipe {recipe} draws its samples, it neither translates nor reconstructs", "input")
        if options.input is None:
            raise InputError(f"recipe {recipe} is given images: name a picture, a folder or a zip of them (--input).")
        options.refuse("it does not go with images that are given (--input)", "grid", *LATENT_SPACE, "npz")
        if not trained.recipe.between:
            options.refuse(f"recipe {recipe} has no steps from a picture to another", "strip")
        if self.given is None:
            options.refuse("it draws samples, and --input reconstructs", "seeds", "classes", "truncation")
        if not trained.latent_dim:
            options.refuse(f"recipe {recipe} draws no latents", "seeds", "truncation")
        if not self.label:
            options.refuse(f"recipe {recipe} is not given labels", "classes")
        if not (self.attribute and self.given):
            options.refuse(f"recipe {recipe} is not given images and attributes", "attributes")
        spec = trained.given[self.given] if self.given else trained.specs[next(iter(trained.recipe.columns))]
        self.spec = spec
        self.sides = trained.recipe.sides if self.given and spec.kind == "images" else 0
        if spec.kind not in ("images", "maps"):
            options.refuse(f"recipe {recipe} reconstructs {spec.kind}, not pictures", "input")
        self.variants = self.chosen()
        refuse_same_folder(options.input, options.outdir)
        refuse_as_data(options.input, "--input")
        titles, self.images, self.skipped = self.read(files)
        self.names = list(names(titles, [suffix for suffix, _, _ in self.variants]))
        sample = trained(**trained.example(1)) if self.given else self.of(0)
        if sample.ndim != 4:
            what = "×".join(map(str, sample.shape[1:]))
            raise InputError(f"recipe {recipe} makes samples of {what}, which are no pictures: use ganfast.load.")

    def read(self, files: ExitStack) -> tuple[list[str], Tensor | FullSize, int]:
        """(names, uint8 [H, W, C] by index, how many were left out) of the pictures."""
        options, spec = self.options, self.spec
        *channels, height, width = spec.shape
        size = parse_size(options.size) or (height, width)
        if not self.sides and size != (height, width):
            raise InputError(
                f"--size {options.size}: recipe {self.trained.recipe.name} takes images of the size of its training, "
                f"{size_word(height, width)}: leave it out."
            )
        if self.sides and options.size is None and channels in ([1], [3]):
            check_there(options.input)
            full = open_full_size(options.input, files, channels=channels[0], skip_bad=options.skip_bad)
            if full is not None:
                return full.titles, full, len(full.skipped)
        return read(options.input, replace(spec, shape=(*channels, *size)), options.skip_bad)

    def chosen(self) -> list[tuple[str, int, int]]:
        """(what an output's name ends with, class, seed) of each output of a picture."""
        options = self.options
        classes, seeds = [0], list(chain(*parse_seeds(options.seeds))) if options.seeds else [0]
        if self.label and self.given:
            spec = self.trained.given[self.label]
            classes = [*range(spec.classes)] if spec.classes <= FEW else [0]
            classes = parse_classes(options.classes, spec.names) if options.classes is not None else classes
        if self.attribute and self.given:
            self.attributes = titles(self.trained.given[self.attribute])
            self.switches = parse_attributes(options.attributes or ",".join(self.attributes), self.attributes)
            return [(f"-{title}".replace("/", "-"), k, 0) for k, (title, _) in enumerate(self.switches)]
        return [
            (f"-class{k}" * bool(self.label and self.given) + f"-seed{seed:06d}" * bool(options.seeds), k, seed)
            for k in classes for seed in seeds
        ]  # fmt: skip

    def of(self, index: int) -> Tensor:
        """[variants, C, H, W] of one picture; of one at a time, so that no neighbour changes a bit of it."""
        x = self.input(index)
        if self.given is None:
            with torch.no_grad():
                return self.trained.reconstruct(x.to(self.trained.device)).cpu()
        height, width = x.shape[-2:]
        if self.sides:
            x = mirrored(x, *(-(-side // self.sides) * self.sides for side in (height, width)))
        _, classes, seeds = map(list, zip(*self.variants))
        tensors = sampling.fill(self.trained, seeds)
        tensors[self.given] = x.expand(len(seeds), *x.shape[1:])
        if self.label:
            tensors[self.label] = torch.tensor(classes)
        if self.attribute:
            tensors[self.attribute] = self.asked(x).flatten(0, 1)
            tensors[self.given] = x.expand(len(tensors[self.attribute]), -1, -1, -1)
        if self.trained.latent_dim:
            tensors["z"] = models.latents(seeds, self.trained.latent_dim, self.options.truncation)
        outputs = sampling.decode(self.trained, tensors)
        times = outputs.shape[-1] // x.shape[-1]  # of super-resolution
        return central(outputs, height, width, times) if self.sides else outputs

    def asked(self, x: Tensor) -> Tensor:
        """[outputs, steps, A]: the attributes found in a picture, with what is switched; or steps towards these."""
        with torch.no_grad():
            own = self.trained.attributes(x.to(self.trained.device)).cpu()
        found = []
        for _, switches in self.switches:
            wanted = own
            for index, value in switches:
                wanted = switched(wanted, self.attributes, index, value)
            to = torch.linspace(0, 1, ACROSS)[:, None] if self.options.strip else torch.ones(1, 1)
            found.append(own.lerp(wanted, to))
        return torch.stack(found)

    def input(self, index: int) -> Tensor:
        """fp32 [1, C, H, W] in [−1, 1], or a map int64 [1, H, W], as networks see them in training."""
        return decode(self.spec.kind, self.images[index][None])

    def outputs(self) -> Iterator[tuple[int, Tensor]]:
        yield from ((k, self.of(k)) for k in tqdm(range(len(self.images)), unit="img", delay=1, leave=False))

    def files(self) -> tuple[str, ...]:
        """What ``write`` will write, by the names that Outputs knows."""
        return ("strip.png",) if self.options.strip else (SAMPLES, "grid.png")

    def write(self, out: Outputs) -> str:
        """A PNG named after each picture, and grid.png of the pictures, each with its outputs; or strip.png alone.

        With --side-by-side each PNG has the picture on the left.
        """
        if self.options.strip:
            return self.write_strip(out)
        shown = []
        each = 1 + len(self.variants)
        for k, outputs in self.outputs():
            row = pictures.to_uint8(self.row(k, outputs)) if self.options.side_by_side else None
            for n, (name, output) in enumerate(zip(self.names[k], pictures.to_uint8(outputs)), 1):
                pictures.write_png(out.sample(name), output if row is None else np.concatenate([row[0], row[n]], 1))
            if (len(shown) + 1) * each <= SHOWN or not shown:
                shown.append(small(self.row(k, outputs)))
        file = out.path("grid.png")
        pictures.write_png(file, self.grid(shown))
        some = f" (the first {len(shown)} of --input)" if len(shown) < len(self.images) else ""
        left_out = f"; {self.skipped} files left out that cannot be decoded" if self.skipped else ""
        count = len(self.images) * len(self.variants)
        return f"{count} picture{'s' if count > 1 else ''} to {out.outdir / SAMPLES}, and {file}{some}{left_out}"

    def write_strip(self, out: Outputs) -> str:
        """A row for each output of each picture, from what it is to what it is to be."""
        file, most = out.path("strip.png"), max(SHOWN // (ACROSS * len(self.variants)), 1)
        strips = joined([small(self.of(k)) for k in range(min(most, len(self.images)))])
        pictures.write_png(file, pictures.picture_of(strips, ACROSS))
        return f"{file}: {len(strips) // ACROSS} rows of steps from a picture to what is asked for"

    def row(self, index: int, outputs: Tensor) -> Tensor:
        """[1 + variants, C, H, W]: a picture and what is made of it."""
        x = pictures.of_given(self.input(index), self.spec)
        return torch.cat([x, outputs] if x.shape[1:] == outputs.shape[1:] else pictures.alike([x, outputs]))

    def grid(self, shown: list[Tensor]) -> np.ndarray:
        each = len(shown[0])
        return pictures.picture_of(joined(shown), each * max(min(ACROSS // each, len(shown)), 1))

    def text(self) -> str:
        shown = [self.row(k, outputs) for k, outputs in self.outputs()]
        if isinstance(self.images, FullSize):
            shown = [pictures.fitted(row, TEXT, TEXT) for row in shown]
        return pictures.as_text(pictures.to_uint8(torch.cat(shown)), len(shown[0]))


def mirrored(x: Tensor, height: int, width: int) -> Tensor:
    """x [..., H, W] in the middle of [..., height, width], reflected at its borders as often as it takes."""
    for axis, wanted in ((-2, height), (-1, width)):
        side = x.shape[axis]
        if wanted > side:
            places = torch.arange(wanted, device=x.device) - (wanted - side) // 2
            places = places.remainder(2 * side - 2)
            x = x.index_select(axis, torch.minimum(places, 2 * side - 2 - places))
    return x


def central(x: Tensor, height: int, width: int, times: int = 1) -> Tensor:
    """The picture [..., height, width] that ``mirrored`` put into x [..., H, W], all sides ``times`` as long."""
    top, left = (times * ((side // times - own) // 2) for side, own in zip(x.shape[-2:], (height, width)))
    return x[..., top : top + times * height, left : left + times * width]


def joined(rows: list[Tensor]) -> Tensor:
    """Images [B, C, H, W] of several sizes as those of the largest."""
    return torch.cat(rows if len({row.shape for row in rows}) == 1 else pictures.alike(rows))


def small(row: Tensor) -> Tensor:
    """Images [B, C, H, W] of no more than LARGEST pixels a side."""
    scale = LARGEST / max(row.shape[2:])
    if scale >= 1:
        return row
    return F.interpolate(row, [max(round(side * scale), 1) for side in row.shape[2:]], mode="area")


def check_there(source: str) -> None:
    if source.startswith("gaussians:"):
        raise InputError(f"--input {source} is points: give a picture, a folder or a zip of images.")
    if not source or not exists(source):
        raise InputError(f"--input {source!r} is not there: give a picture, a folder or a zip of images.")


def read(source: str, spec: Spec, skip_bad: bool) -> tuple[list[str], Tensor, int]:
    """(names, uint8 [N, H, W, C], how many were left out) of the pictures, or label maps, that a person gives."""
    *channels, height, width = spec.shape
    check_there(source)
    size = size_word(height, width) if is_size(height, width) else None
    reading = {"size": size, "skip_bad": skip_bad, "maps": spec.kind == "maps"}
    data, titles = open_titled(source, channels=channels[0] if channels in ([1], [3]) else None, **reading)
    if spec.kind not in data.columns:
        raise InputError(f"--input {source} has no {spec.kind}: give a picture, a folder or a zip of them.")
    if [*data.shape[:-2]] != channels:
        raise InputError(
            f"the recipe's images have {channels[0]} channels, and pictures have 1 or 3: give a .npy (--input)."
        )
    if (classes := data.spec(spec.kind).classes) > spec.classes:
        raise InputError(f"--input {source} has {classes} classes, and the recipe was trained on {spec.classes}.")
    return titles or [f"{k:06d}" for k in range(len(data))], data.columns[spec.kind], len(data.skipped)


def refuse_same_folder(source: str, outdir: Path) -> None:
    """Outputs are named after inputs, and would lie among them."""
    path = Path(source).expanduser()
    folder = path if path.is_dir() else path.parent if path.is_file() else None
    own = (outdir.resolve(), (outdir / SAMPLES).resolve())
    if folder and folder.resolve() in own and path.suffix.lower() not in (".zip", *ARRAYS):
        raise InputError(f"{folder} holds the pictures of --input: give another --outdir.")


def names(titles: list[str], suffixes: list[str]) -> Iterator[list[str]]:
    """File names for the outputs of each picture, ``a/b.jpg`` → ``a-b.png``: short, in one folder, all different."""
    taken: set[str] = set()
    for k, title in enumerate(titles):
        flat = title.replace("/", "-").replace("\\", "-")
        for stem in (Path(flat).stem, flat, f"{k:06d}-{flat[:50]}", f"{k:06d}"):
            found = [f"{stem}{suffix}.png" for suffix in suffixes]
            if not taken.intersection(each.lower() for each in found) and len(stem.encode(errors="replace")) < 200:
                break
        taken.update(each.lower() for each in found)
        yield found
