"""``ganfast evaluate``: scores, which stay in the run directory."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

from ganfast import metrics
from ganfast.commands.network import load_generator
from ganfast.data import gaussians, open_dataset
from ganfast.errors import InputError
from ganfast.training import checkpoint, run_directory
from ganfast.training.sampling import sample


@dataclass(kw_only=True)
class Evaluate:
    """How far a generator is from the data, by a classifier or the modes it covers."""

    network: Path
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    data: str
    """the data it was trained on; images need labels"""
    samples: int = 2500
    """how many to generate"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def run(self) -> None:
        if self.samples < 1:
            raise InputError(f"--samples must be at least 1, got {self.samples}.")
        generator, device = load_generator(self.network, self.device)
        fakes = sample(generator, range(self.samples), None, device)
        family, _, name = self.data.partition(":")
        if family == "gaussians" and name in gaussians.MODES:
            if fakes.ndim != 2:
                raise InputError(
                    f"--data {self.data} is points, and this generator makes images: give the data it was trained on."
                )
            metric, scores = "modes", metrics.mode_report(fakes, *gaussians.MODES[name])
        else:
            data = open_dataset(self.data, size=fakes.shape[-1] if fakes.ndim == 4 else None)
            metric, scores = "classes", metrics.class_report(data, fakes)
        print(scores)
        self.keep(metric, scores, generator.about.get("step"))

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
