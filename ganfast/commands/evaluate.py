"""``ganfast evaluate``: scores, which stay in the run directory."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ganfast import metrics
from ganfast.commands import network
from ganfast.data import Column, Dataset, gaussians, open_dataset
from ganfast.data.options import size_word
from ganfast.errors import InputError
from ganfast.recipes import Trained
from ganfast.training import checkpoint, run_directory, sampling


@dataclass(kw_only=True)
class Evaluate:
    """How far a generator is from the data, by a classifier or the modes it covers."""

    network: Path
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    data: str
    """the data it was trained on; images need labels"""
    samples: int = 2500
    """how many to generate, of each class in turn where the recipe is given labels"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def run(self) -> None:
        if self.samples < 1:
            raise InputError(f"--samples must be at least 1, got {self.samples}.")
        trained = network.load(self.network, self.device)
        if "images" in network.conditions(trained):
            raise InputError(
                f"evaluate compares samples drawn from latents, and recipe {trained.recipe.name} is given images: look "
                "at what `ganfast generate --input` makes of some."
            )
        given = sampling.fill(trained, range(self.samples))
        fakes = sampling.sample(trained, range(self.samples), None, given)
        family, _, name = self.data.partition(":")
        if family == "gaussians" and name in gaussians.MODES:
            if fakes.ndim != 2:
                raise InputError(
                    f"--data {self.data} is points, and this generator makes images: give the data it was trained on."
                )
            metric, scores = "modes", metrics.mode_report(fakes, *gaussians.MODES[name])
        else:
            channels, size = (fakes.shape[1], size_word(*fakes.shape[2:])) if fakes.ndim == 4 else (None, None)
            data = open_dataset(self.data, size=size, channels=channels if channels in (1, 3) else None)
            metric, scores = "classes", metrics.class_report(data, fakes, labels_of_data(trained, given, data))
        print(scores)
        self.keep(metric, scores, trained.about.get("step"))

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


def labels_of_data(trained: Trained, given: dict[str, Tensor], data: Dataset) -> Tensor | None:
    """The classes that samples were made of; None where they are not those of the data, but codes of the recipe."""
    label = network.conditions(trained).get("labels")
    if label is None or not isinstance(trained.recipe.given[label], Column):
        return None
    own = trained.given[label].classes
    if data.labels is not None and data.num_classes != own:
        raise InputError(
            f"the recipe was trained on {own} classes, and {data.name} has {data.num_classes}: give the data it was "
            "trained on (--data)."
        )
    return given[label]
