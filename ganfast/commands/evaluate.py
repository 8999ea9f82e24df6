"""``ganfast evaluate``: scores, which stay in the run directory."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from ganfast import metrics
from ganfast.commands import network
from ganfast.commands.outputs import refuse_as_data
from ganfast.data import Column, Dataset, gaussians, open_dataset
from ganfast.data.options import DataOptions, data_fields, size_word
from ganfast.errors import InputError
from ganfast.recipes import Trained
from ganfast.training import checkpoint, run_directory, sampling

PART = 256  # samples at once; a multiple of sampling.BLOCK, so that a seed's sample has the same bits


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The first options of the help."""

    network: Annotated[Path, tyro.conf.arg(metavar="RUN"), tyro.conf.Positional]
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    data: str | None = None
    """what to compare with; by default the data that the run was trained on"""
    samples: int = 2500
    """how many to generate, of each class in turn where the recipe is given labels"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


@dataclass(frozen=True, kw_only=True)
class Evaluate(DataOptions, Compared):
    """Compare samples with data, which is by default the run's and read as there."""

    def as_trained(self) -> "Evaluate":
        """The defaults that the run gives: its data, and how that is read."""
        run = run_directory.of(self.network)
        if run is None:
            return Evaluate(network=self.network)
        about = run_directory.read_options(run)
        stored = about.get("options", {})
        reading = {name: stored[name] for name in data_fields(self) if name in stored}
        return Evaluate(network=self.network, data=run_directory.data_of(about), **reading)

    def run(self) -> None:
        if self.samples < 1:
            raise InputError(f"--samples must be at least 1, got {self.samples}.")
        if not self.network.exists():
            raise InputError(f"{self.network} is not there: give a run directory or a generator.safetensors.")
        trained = network.load(self.network, self.device)
        if "images" in network.conditions(trained):
            raise InputError(
                f"evaluate compares samples drawn from latents, and recipe {trained.recipe.name} is given images: look "
                "at what `ganfast generate --input` makes of some."
            )
        if self.data is None:
            raise InputError(f"{self.network} is a generator without its run: name the data to compare with (--data).")
        metric, scores = self.scores(trained)
        print(scores)
        self.keep(metric, scores, trained.about.get("step"))

    def scores(self, trained: Trained) -> tuple[str, metrics.ModeReport | metrics.ClassReport]:
        """The metric that fits the data, and what it says; the data is checked before samples are drawn."""
        shape = tuple(draw(trained, 1).shape[1:])
        family, _, name = self.data.partition(":")
        if family == "gaussians" and name in gaussians.MODES:
            if len(shape) != 1:
                raise InputError(
                    f"--data {self.data} is points, and this generator makes images: give the data it was trained on."
                )
            return "modes", metrics.mode_report(draw(trained, self.samples), *gaussians.MODES[name])
        refuse_as_data(self.data, "--data")
        data = self.open(shape)
        metrics.check_classes(data, shape)
        classes = labels_of_data(trained, data, self.samples)
        return "classes", metrics.class_report(data, draw(trained, self.samples), classes, progress=True)

    def open(self, shape: tuple[int, ...]) -> Dataset:
        """The data, in the size and with the channels of samples where no option says otherwise."""
        options = data_fields(self)
        if len(shape) == 3:
            options["size"] = options["size"] or size_word(*shape[1:])
            options["channels"] = options["channels"] or (shape[0] if shape[0] in (1, 3) else None)
        try:
            return open_dataset(self.data, **options)
        except InputError as error:
            run = run_directory.of(self.network)
            about = run_directory.read_options(run) if run else {}
            if Path(self.data).expanduser().exists() or self.data != about.get("options", {}).get("data"):
                raise
            place = about.get("data", {}).get("source") or self.data
            raise InputError(
                f"{self.data} is not there, and {self.network} had its data from {place}: say where it is (--data)."
            ) from error

    def keep(self, metric: str, scores, step: str | None) -> None:
        """A line in metric-<metric>.jsonl of the run, where the generator is one's."""
        run = run_directory.of(self.network)
        if run is None:
            return
        if (self.network / checkpoint.MANIFEST).is_file():
            step = checkpoint.read_manifest(self.network).get("step")
        about = {
            "metric": metric,
            "data": self.data,
            "samples": self.samples,
            "step": None if step is None else int(step),
        }
        row = {**about, "time": time.strftime("%Y-%m-%d %H:%M:%S"), **dataclasses.asdict(scores)}
        file = run / f"metric-{metric}.jsonl"
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(f"kept in {file}")


def draw(trained: Trained, count: int) -> Tensor:
    """Samples of the seeds 0 … count − 1, under a progress bar where it takes longer than a second."""
    parts = []
    with tqdm(total=count, desc="samples", unit="sample", unit_scale=True, delay=1, leave=False) as bar:
        for start in range(0, count, PART):
            seeds = range(start, min(start + PART, count))
            parts.append(sampling.sample(trained, seeds, None, sampling.fill(trained, seeds)))
            bar.update(len(seeds))
    return torch.cat(parts)


def labels_of_data(trained: Trained, data: Dataset, count: int) -> Tensor | None:
    """The classes that samples were made of; None where they are not those of the data, but codes of the recipe."""
    label = network.conditions(trained).get("labels")
    if label is None or not isinstance(trained.recipe.given[label], Column):
        return None
    own = trained.given[label].classes
    if data.num_classes != own:
        raise InputError(
            f"the recipe was trained on {own} classes, and {data.name} has {data.num_classes}: give the data it was "
            "trained on (--data)."
        )
    return sampling.fill(trained, range(count))[label]
