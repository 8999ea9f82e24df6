"""``ganfast project``: the codes of which a trained recipe would make given pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ganfast.commands import network
from ganfast.commands.choices import parse_classes
from ganfast.commands.drawing import FEW
from ganfast.commands.outputs import Outputs, refuse_as_data
from ganfast.commands.translating import read
from ganfast.data.sampler import decode
from ganfast.errors import InputError
from ganfast.files import replacing
from ganfast.metrics import features
from ganfast.metrics.fidelity import psnr
from ganfast.metrics.perceptual import Perceptual, pixels
from ganfast.recipes import Trained
from ganfast.training import pictures
from ganfast.training.projecting import Projection, check, project

ACROSS = 16  # pictures beside one another in projection.png


@dataclass(kw_only=True)
class Project:
    """Find the latent codes of pictures by gradient descent."""

    network: Path
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    input: str
    """a picture, a folder, a zip or other images"""
    steps: int = 300
    """steps of Adam; 0: only the encoder's code, or the best of a few drawn latents"""
    loss: Literal["pixels", "perceptual"] = "pixels"
    """compare mean squared errors, or the maps of a feature network"""
    features: str | None = None
    """of --loss perceptual: weights of Inception-v3, MobileNetV2, SqueezeNet or DINOv2"""
    classes: str | None = None
    """of recipes given labels: the classes to try, each picture keeps the best; by default all, of up to 16"""
    first: int = 64
    """how many pictures of --input at most, evenly spread"""
    seed: int = 0
    """of the drawn latents"""
    outdir: Path = Path("projected")
    """the folder to write: projection.png and latents.npz, for generate --latents"""
    overwrite: bool = False
    """first remove what earlier calls wrote to --outdir, and nothing else"""
    skip_bad: bool = False
    """leave out files of --input that cannot be decoded, and count them"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def run(self) -> None:
        for name, least in (("steps", 0), ("first", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} must be at least {least}, got {getattr(self, name)}.")
        if (self.loss == "perceptual") != (self.features is not None):
            raise InputError("--loss perceptual and --features WEIGHTS go together: give both or neither.")
        trained = network.load(self.network, self.device).requires_grad_(False)
        check(trained)
        classes = self.to_try(trained)
        spec = trained.specs[next(iter(trained.recipe.columns))]
        refuse_as_data(self.input, "--input")
        titles, images, skipped = read(self.input, spec, self.skip_bad)
        rows = torch.linspace(0, len(images) - 1, min(self.first, len(images)), dtype=torch.float64).round().long()
        some = f"; {len(rows)} of {len(images)} pictures (--first)" * (len(rows) < len(images))
        left_out = f"; {skipped} files left out that cannot be decoded" * bool(skipped)
        distance = Perceptual(features.published(self.features, trained.device)) if self.features else pixels
        targets = decode("images", images[rows])
        with Outputs(self.outdir, ("projection.png", "latents.npz"), self.overwrite) as out:
            found = project(trained, targets, self.steps, self.seed, distance, classes, progress=True)
            names = [titles[k] for k in rows.tolist()]
            print(self.table(trained, names, targets, found))
            files = draw(out, targets, found), archive(out, names, targets, found)
        print(f"wrote {' and '.join(map(str, files))}{some}{left_out}")

    def to_try(self, trained: Trained) -> list[int]:
        """The classes to try; none where the code says all."""
        label = network.conditions(trained).get("labels")
        if not label or trained.can("encode"):
            if self.classes is not None:
                raise InputError(f"--classes: recipe {trained.recipe.name} needs no class beside a code: leave it out.")
            return []
        spec = trained.given[label]
        if self.classes is None and spec.classes > FEW:
            raise InputError(f"the recipe has {spec.classes} classes, which are too many to try: give --classes.")
        return [*range(spec.classes)] if self.classes is None else parse_classes(self.classes, spec.names)

    def table(self, trained: Trained, names: list[str], targets: Tensor, found: Projection) -> str:
        """A line for each picture: its errors, and its class where there are some."""
        start, result = psnr(found.start, targets), psnr(found.result, targets)
        kinds = [""] * len(names)
        if found.classes is not None:
            of = trained.given[network.conditions(trained)["labels"]].names
            kinds = [f"  {of[k]}" for k in found.classes]
        wide = max(map(len, [*names, "picture"]))
        lines = [f"{'picture':<{wide}}  start, dB  result, dB{'  class' * any(kinds)}"]
        rows = [*zip(names, start, result, kinds), ("mean", start.mean(), result.mean(), "")]
        return "\n".join(lines + [f"{name:<{wide}}  {a:>9.2f}  {b:>10.2f}{kind}" for name, a, b, kind in rows])


def draw(out: Outputs, targets: Tensor, found: Projection) -> Path:
    """projection.png: rows of pictures, below each what it began with, and below that the result."""
    rows = []
    for part in zip(*(images.split(ACROSS) for images in (targets, found.start, found.result))):
        for images in map(pictures.to_uint8, part):
            empty = min(ACROSS, len(targets)) - len(images)
            rows.append(np.pad(images, ((0, empty), (0, 0), (0, 0), (0, 0)), constant_values=128))
    file = out.path("projection.png")
    pictures.write_png(file, pictures.grid(np.concatenate(rows), len(rows[0])))
    return file


def archive(out: Outputs, names: list[str], targets: Tensor, found: Projection) -> Path:
    """latents.npz: codes fp32 [N, n], classes int64 [N] where there are some, names, and psnr fp32 [N] in dB."""
    arrays = {"codes": found.codes.numpy(), "names": np.array(names), "psnr": psnr(found.result, targets).numpy()}
    arrays |= {} if found.classes is None else {"classes": found.classes.numpy()}
    file = out.path("latents.npz")
    with replacing(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, **arrays)
    return file
