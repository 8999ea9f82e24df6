"""``ganfast evaluate``: scores, which stay in the run directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from ganfast import metrics
from ganfast.commands import network, translations
from ganfast.commands.outputs import refuse_as_data
from ganfast.data import Column, Dataset, derived, open_dataset
from ganfast.data.options import DataOptions, data_fields, size_word
from ganfast.data.sources import exists
from ganfast.data.stacked import PREFIX
from ganfast.errors import InputError
from ganfast.metrics.lenet import normalise
from ganfast.metrics.pairs import pair_report
from ganfast.recipes import Trained
from ganfast.training import (
    abilities,
    battle,
    checkpoint,
    latent_map,
    pictures,
    run_directory,
    sampling,
    scoring,
)
from ganfast.training.scoring import draw

SHOWN = 16  # samples in neighbours.png


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The first options of the help."""

    network: Annotated[Path, tyro.conf.arg(metavar="RUN"), tyro.conf.Positional]
    """a run directory, one of its checkpoints, or a generator.safetensors"""
    data: str | None = None
    """what to compare with; by default the data that the run was trained on"""
    data_b: str | None = None
    """of translations: the second set, or the partners of --data; by default those of the run"""
    paired: bool = False
    """of translations between unpaired sets: files of --data and --data-b of one name are partners"""
    samples: int | None = None
    """how many to generate, of each class in turn where there are labels; by default 2500, of stacked:* 26000"""
    features: str | None = None
    """weights of Inception-v3, MobileNetV2, SqueezeNet or DINOv2 to compare by; by default a trained classifier's"""
    neighbours: bool = False
    """draw the training images that are nearest to some samples into neighbours.png of the run"""
    battle: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """only the generative adversarial metric: the two runs' discriminators judge each other's samples, and data"""
    parzen: bool = False
    """log-likelihood by a Parzen window over 10000 samples, beside that of as many real images"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


@dataclass(frozen=True, kw_only=True)
class Evaluate(DataOptions, Compared):
    """Compare samples with data, which is by default the run's and read as there."""

    def __post_init__(self):
        run = run_directory.of(self.network)
        stored = run_directory.read_options(run).get("options", {}) if run else {}
        if self.load_size == stored.get("load_size") and self.size != stored.get("size"):
            object.__setattr__(self, "load_size", None)  # it belongs to the run's own size
        super().__post_init__()

    def as_trained(self) -> "Evaluate":
        """The defaults that the run gives: its data, and how that is read."""
        run = run_directory.of(self.network)
        if run is None:
            return Evaluate(network=self.network)
        about = run_directory.read_options(run)
        stored = about.get("options", {})
        reading = {name: stored[name] for name in data_fields(self) if name in stored}
        sources = {name: run_directory.data_of(about, name) for name in ("data", "data_b")}
        return Evaluate(network=self.network, **sources, **reading)

    def run(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise InputError(f"--samples must be at least 1, got {self.samples}.")
        if not self.network.exists():
            raise InputError(f"{self.network} is not there: give a run directory or a generator.safetensors.")
        trained = network.load(self.network, self.device)
        if self.data is None:
            raise InputError(f"{self.network} is a generator without its run: name the data to compare with (--data).")
        if {"images", "maps"} & network.conditions(trained).keys():
            translations.compare(self, trained)
            return
        if self.paired:
            raise InputError(f"--paired: recipe {trained.recipe.name} does not translate images: leave it out.")
        if self.neighbours and run_directory.of(self.network) is None:
            raise InputError(f"--neighbours: {self.network} is a generator without its run: give a run directory.")
        self.compare(trained)

    def compare(self, trained: Trained) -> None:
        """Print the scores that fit the data and keep them; the data is checked before samples are drawn."""
        shape = tuple(draw(trained, 1).shape[1:])
        refuse_as_data(self.data, "--data")
        points = self.data.startswith("gaussians:")
        if points and len(shape) != 1:
            raise InputError(
                f"--data {self.data} is points, and this generator makes images: give the data it was trained on."
            )
        data = self.open(shape)
        if self.battle is not None:
            metrics.check_shape(data, shape)
            count = min(self.samples or scoring.SAMPLES, len(data))
            report = battle.contest(self.network, self.battle, data, count, trained.device)
            self.keep("battle", report, trained, count)
            return
        exact, reading = self.samples is not None, data_fields(self) | {"size": self.size or size_of(shape)}
        judge = scoring.judge(self.data, data, self.features, trained.device, True, exact, **reading)
        metrics.check_shape(data, shape)
        if self.parzen and data.kind != "images":
            raise InputError(f"--parzen: {self.data} is points, and the estimate is of images: leave it out.")
        if self.neighbours and judge.network is None:
            raise InputError(f"--neighbours: {self.data} needs the weights of a feature network (--features).")
        labelled = data.kind == "images" and data.labels is not None and not self.data.startswith(PREFIX)
        classes = labels_of_data(trained, data, self.samples or judge.samples) if labelled else None
        samples = draw(trained, self.samples or judge.samples)
        if labelled and len(data.labels.unique()) > 1:
            self.keep("classes", metrics.class_report(data, samples, classes, progress=True), trained, len(samples))
        if trained.can("pairs"):
            self.pairs(trained, len(samples))
        of_abilities = abilities.reports(trained, data, self.own(trained, data))
        for metric, report in {**judge.reports(samples), **of_abilities}.items():
            self.keep(metric, report, trained, len(samples))
        if self.parzen:
            self.keep("parzen", self.parzen_of(trained, data), trained, metrics.parzen.SAMPLES)
        if self.neighbours:
            self.draw_neighbours(data, samples[:SHOWN], judge)
        self.draw_latents(trained, data)

    def parzen_of(self, trained: Trained, data: Dataset) -> metrics.ParzenReport:
        """With images that the run was trained on as its floor, where those are others than ``data``."""
        own = self.as_trained() if run_directory.of(self.network) else self
        real = own.open(data.shape)
        real = data if real.fingerprint() == data.fingerprint() else real
        return metrics.parzen_report(data, real, draw(trained, metrics.parzen.SAMPLES), progress=True)

    def draw_latents(self, trained: Trained, data: Dataset) -> None:
        """latents.png, where codes have two numbers and the generator is a run's."""
        if latent_map.has_plane(trained) and (run := run_directory.of(self.network)):
            pictures.write_png(run / "latents.png", latent_map.picture(trained, data))
            print(f"codes of real samples by label, over the prior: {run / 'latents.png'}")

    def pairs(self, trained: Trained, count: int) -> None:
        """How the samples of a pair agree, where the run's --data-b was made of its --data."""
        run = run_directory.of(self.network)
        options = run_directory.read_options(run)["options"] if run else {}
        made, base = derived.split(options.get("data_b") or "")
        if not made or base != options["data"] or count < 2:
            return
        samples = draw(trained, count, make=sampling.strip)
        a, b = (torch.from_numpy(pictures.to_uint8(each)) for each in samples.unbind(1))
        wanted = derived.make(made, Dataset("samples", images=a)).samples
        self.keep("pairs", pair_report(wanted, b), trained, count)

    def own(self, trained: Trained, data: Dataset) -> Dataset | None:
        """The run's training data where ``data`` is another part of it, and an encoder's codes are compared."""
        as_trained = self.as_trained()
        if not trained.can("encode") or as_trained.data != self.data or as_trained.split == self.split:
            return None
        own = as_trained.open(data.shape)
        return None if own.fingerprint() == data.fingerprint() else own

    def draw_neighbours(self, data: Dataset, samples: Tensor, judge: scoring.Judge) -> None:
        """neighbours.png: a row of samples, and below each its nearest training images by pixels and by features."""
        found = metrics.neighbours(data, samples, judge.network(), progress=True)
        real = [normalise(data.samples[rows]) for rows, _ in (found.pixels, found.features)]
        file = run_directory.of(self.network) / "neighbours.png"
        pictures.write_png(file, pictures.picture_of(torch.cat([samples, *real]), len(samples)))
        print(f"{found}\nsamples, and below them their nearest by pixels and by features: {file}")

    def open(self, shape: tuple[int, ...], targets: str | None = None, source: str | None = None) -> Dataset:
        """The data, in the size and with the channels of samples where no option says otherwise."""
        source = source or self.data
        options = data_fields(self)
        if len(shape) == 3:
            options["size"] = options["size"] or size_of(shape)
            options["channels"] = options["channels"] or (shape[0] if shape[0] in (1, 3) else None)
        try:
            return open_dataset(source, targets, **options)
        except InputError as error:
            run = run_directory.of(self.network)
            about = run_directory.read_options(run) if run else {}
            if exists(self.data) or source != self.data != about.get("options", {}).get("data"):
                raise
            place = about.get("data", {}).get("source") or self.data
            raise InputError(
                f"{self.data} is not there, and {self.network} had its data from {place}: say where it is (--data)."
            ) from error

    def keep(self, metric: str, report, trained: Trained, samples: int) -> None:
        """Print a report, and where the generator is a run's keep it there, with the step."""
        print(report)
        run = run_directory.of(self.network)
        if run is None:
            return
        step = trained.about.get("step")
        if (self.network / checkpoint.MANIFEST).is_file():
            step = checkpoint.read_manifest(self.network).get("step")
        file = scoring.keep(run, metric, report, self.data, samples, None if step is None else int(step))
        print(f"kept in {file}")


def size_of(shape: tuple[int, ...]) -> str | None:
    return size_word(*shape[1:]) if len(shape) == 3 else None


def labels_of_data(trained: Trained, data: Dataset, count: int) -> Tensor | None:
    """The classes that samples were made of; None where they are not those of the data, but codes of the recipe."""
    label = network.conditions(trained).get("labels")
    if label is None or not isinstance(trained.recipe.given[label], Column):
        return None
    own = trained.given[label].classes
    scoring.check_classes_of(own, data)
    return sampling.fill(trained, range(count))[label]
