"""The scores that fit a run's data: of the averaged networks while it trains, and of ``ganfast evaluate``."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ganfast.data import Dataset
from ganfast.data.gaussians import MODES
from ganfast.data.options import data_fields
from ganfast.data.sources import open_base
from ganfast.data.stacked import PREFIX
from ganfast.errors import InputError
from ganfast.metrics import check_classes, features, mode_report, score_report, stacked_report, usable
from ganfast.metrics.features import Network
from ganfast.metrics.stacked import SAMPLES as STACKED
from ganfast.recipes import Trained
from ganfast.training import sampling
from ganfast.training.options import TrainOptions

SAMPLES = 2500  # of PacGAN's protocol on points, and enough for a Fréchet distance over few features

Report = object  # a dataclass of numbers that prints itself


@dataclasses.dataclass(frozen=True)
class Judge:
    """``reports`` makes reports of samples, by metric; ``samples`` is how many it takes by default."""

    samples: int
    reports: Callable[[Tensor], dict[str, Report]]
    network: Callable[[], Network] | None = None


def judge(
    word: str, data: Dataset, weights: str | None, device: torch.device, progress=False, exact=False, **reading
) -> Judge:
    """What judges samples of ``data``, which ``word`` names; ``InputError`` where nothing can.

    Modes on ``gaussians:*`` and ``stacked:*`` (opened once more, by ``reading``); over features where ``weights`` of a
    network are given, else over those of a classifier of labelled images. Unless ``exact``, no more samples are
    compared than half of the data has rows.
    """
    family, _, name = word.partition(":")
    if family == "gaussians" and name in MODES:
        if weights:
            raise InputError(f"--features {weights}: {word} is points, and feature networks see images: leave it out.")
        return Judge(SAMPLES, lambda samples: {"modes": mode_report(samples, *MODES[name])})
    if weights:
        published = features.published(weights, device)
        network = lambda: published  # noqa: E731
    elif not word.startswith(PREFIX):
        check_classes(data, data.shape)
        network = functools.cache(lambda: features.of_data(data, device, progress))
    else:
        network = None

    base = functools.cache(lambda: open_base(word, progress=progress, **reading))

    def reports(samples: Tensor) -> dict[str, Report]:
        found = {}
        if word.startswith(PREFIX):
            found["stacked"] = stacked_report(base(), samples, progress=progress)
        if network:
            compared = samples if exact else samples[: usable(data, len(samples))]
            found[network().name] = score_report(data, compared, network(), progress)
        return found

    return Judge(STACKED if word.startswith(PREFIX) else SAMPLES, reports, network)


def of_run(options: TrainOptions, data: Dataset, trained: Trained) -> Judge:
    """What scores a run while it trains; ``InputError`` where its samples are not drawn from seeds alone."""
    for kind in [spec.kind for spec in trained.given.values() if spec.kind not in ("labels", "attributes")]:
        raise InputError(
            f"--score-every: recipe {trained.recipe.name} is given {kind}, and scores are of samples drawn from "
            "latents: leave it out."
        )
    return judge(options.data, data, options.features, trained.device, **data_fields(options))


def check_classes_of(own: int, data: Dataset) -> None:
    """``InputError`` where ``data`` has another number of classes than the recipe's ``own``."""
    if data.num_classes != own:
        raise InputError(
            f"the recipe was trained on {own} classes, and {data.name} has {data.num_classes}: give the data it was "
            "trained on (--data)."
        )


def draw(trained: Trained, count: int, progress: bool = True, make: Callable = sampling.sample) -> Tensor:
    """What ``make`` makes of the seeds 0 … count − 1, under a progress bar where it takes longer than a second."""
    parts = []
    bar = tqdm(total=count, desc="samples", unit="sample", unit_scale=True, delay=1, leave=False, disable=not progress)
    with bar:
        for start in range(0, count, sampling.PART):
            seeds = range(start, min(start + sampling.PART, count))
            parts.append(make(trained, seeds, None, sampling.fill(trained, seeds)))
            bar.update(len(seeds))
    return torch.cat(parts)


def keep(run: Path, metric: str, report: Report, data: str, samples: int, step: int | None) -> Path:
    """A line in metric-<metric>.jsonl of the run: what was compared, when, and the fields of the report."""
    about = {"metric": metric, "data": data, "samples": samples, "step": step}
    row = {**about, "time": time.strftime("%Y-%m-%d %H:%M:%S"), **dataclasses.asdict(report)}
    file = run / f"metric-{metric}.jsonl"
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")
    return file
