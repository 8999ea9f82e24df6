"""Samples that are made of pictures: translations, or reconstructions."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ganfast import models
from ganfast.commands import network
from ganfast.commands.choices import parse_attributes, parse_classes, parse_seeds
from ganfast.commands.drawing import FEW, SHOWN
from ganfast.commands.generate import LATENT_SPACE, Generate
from ganfast.commands.outputs import SAMPLES, Outputs, refuse_as_data
from ganfast.data.attributes import switched, titles
from ganfast.data.options import size_word
from ganfast.data.sampler import decode
from ganfast.data.sources import exists, open_titled
from ganfast.errors import InputError
from ganfast.recipes import Trained
from ganfast.training import pictures, sampling

ARRAYS = (".npy", ".npz", ".safetensors")  # data sets in one file, whose rows have no names
ACROSS = 8  # images in a row of the grid, about


class Translating:
    """One output per picture of --input (and per seed and class, where the recipe has them), checked before writing."""

    def __init__(self, options: Generate, trained: Trained):
        self.options, self.trained, recipe = options, trained, trained.recipe.name
        kinds = network.conditions(trained)
        self.given, self.label, self.attribute = (kinds.get(kind) for kind in ("images", "labels", "attributes"))
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
        if spec.kind != "images":
            options.refuse(f"recipe {recipe} reconstructs {spec.kind}, not pictures", "input")
        self.variants = self.chosen()
        refuse_same_folder(options.input, options.outdir)
        refuse_as_data(options.input, "--input")
        titles, self.images, self.skipped = read(options.input, spec.shape, options.skip_bad)
        self.names = list(names(titles, [suffix for suffix, _, _ in self.variants]))
        outputs = self.of(0)
        if outputs.ndim != 4:
            what = "×".join(map(str, outputs.shape[1:]))
            raise InputError(f"recipe {recipe} makes samples of {what}, which are no pictures: use ganfast.load.")

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
            return [(f"-{title}", k, 0) for k, (title, _) in enumerate(self.switches)]
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
        _, classes, seeds = map(list, zip(*self.variants))
        tensors = sampling.fill(self.trained, seeds)
        tensors[self.given] = x.expand(len(seeds), -1, -1, -1)
        if self.label:
            tensors[self.label] = torch.tensor(classes)
        if self.attribute:
            tensors[self.attribute] = self.asked(x).flatten(0, 1)
            tensors[self.given] = x.expand(len(tensors[self.attribute]), -1, -1, -1)
        if self.trained.latent_dim:
            tensors["z"] = models.latents(seeds, self.trained.latent_dim, self.options.truncation)
        return sampling.decode(self.trained, tensors)

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
        """fp32 [1, C, H, W] in [−1, 1], as networks see them in training."""
        return decode("images", self.images[index : index + 1])

    def outputs(self) -> Iterator[tuple[int, Tensor]]:
        yield from ((k, self.of(k)) for k in tqdm(range(len(self.images)), unit="img", delay=1, leave=False))

    def files(self) -> tuple[str, ...]:
        """What ``write`` will write, by the names that Outputs knows."""
        return ("strip.png",) if self.options.strip else (SAMPLES, "grid.png")

    def write(self, out: Outputs) -> str:
        """A PNG named after each picture, and grid.png of the pictures, each with its outputs; or strip.png alone."""
        if self.options.strip:
            return self.write_strip(out)
        shown = []
        each = 1 + len(self.variants)
        for k, outputs in self.outputs():
            for name, output in zip(self.names[k], pictures.to_uint8(outputs)):
                pictures.write_png(out.sample(name), output)
            if (len(shown) + 1) * each <= SHOWN or not shown:
                shown.append(self.row(k, outputs))
        file = out.path("grid.png")
        pictures.write_png(file, self.grid(shown))
        some = f" (the first {len(shown)} of --input)" if len(shown) < len(self.images) else ""
        left_out = f"; {self.skipped} files left out that cannot be decoded" if self.skipped else ""
        count = len(self.images) * len(self.variants)
        return f"{count} picture{'s' if count > 1 else ''} to {out.outdir / SAMPLES}, and {file}{some}{left_out}"

    def write_strip(self, out: Outputs) -> str:
        """A row for each output of each picture, from what it is to what it is to be."""
        file, most = out.path("strip.png"), max(SHOWN // (ACROSS * len(self.variants)), 1)
        strips = torch.cat([self.of(k) for k in range(min(most, len(self.images)))])
        pictures.write_png(file, pictures.picture_of(strips, ACROSS))
        return f"{file}: {len(strips) // ACROSS} rows of steps from a picture to what is asked for"

    def row(self, index: int, outputs: Tensor) -> Tensor:
        """[1 + variants, C, H, W]: a picture and what is made of it."""
        x = self.input(index)
        return torch.cat([x, outputs] if x.shape[1:] == outputs.shape[1:] else pictures.alike([x, outputs]))

    def grid(self, shown: list[Tensor]) -> np.ndarray:
        each = len(shown[0])
        return pictures.picture_of(torch.cat(shown), each * max(min(ACROSS // each, len(shown)), 1))

    def text(self) -> str:
        shown = [self.row(k, outputs) for k, outputs in self.outputs()]
        return pictures.as_text(pictures.to_uint8(torch.cat(shown)), len(shown[0]))


def read(source: str, shape: tuple[int, ...], skip_bad: bool) -> tuple[list[str], Tensor, int]:
    """(names, uint8 [N, H, W, C], how many were left out) of the pictures that a person gives."""
    channels, *sides = shape
    if source.startswith("gaussians:"):
        raise InputError(f"--input {source} is points: give a picture, a folder or a zip of images.")
    if not source or not exists(source):
        raise InputError(f"--input {source!r} is not there: give a picture, a folder or a zip of images.")
    own = channels if channels in (1, 3) else None
    data, titles = open_titled(source, size=size_word(*sides), channels=own, skip_bad=skip_bad)
    if "images" not in data.columns:
        raise InputError(f"--input {source} has no images: give a picture, a folder or a zip of images.")
    if data.shape != tuple(shape):
        raise InputError(
            f"the recipe's images have {channels} channels, and pictures have 1 or 3: give a .npy (--input)."
        )
    return titles or [f"{k:06d}" for k in range(len(data))], data.columns["images"], len(data.skipped)


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
