"""Scores of what a recipe can do besides sampling: classify, encode, bound a likelihood, vary codes."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from ganfast.data import Dataset, Labels
from ganfast.data.sampler import decode
from ganfast.errors import InputError
from ganfast.metrics import bound_report
from ganfast.metrics.classification import (
    ClassificationReport,
    ClusteringReport,
    classification_report,
    clustering_report,
)
from ganfast.recipes import Trained
from ganfast.training import codes, representing
from ganfast.training.scoring import PART, Report


def classification(trained: Trained, data: Dataset, progress: bool) -> ClassificationReport | None:
    """Of recipes that learn from labels; None for others."""
    own = [trained.specs[name].classes for name, column in trained.recipe.columns.items() if isinstance(column, Labels)]
    if not own or data.labels is None:
        return None
    if data.num_classes != own[0]:
        raise InputError(
            f"the recipe was trained on {own[0]} classes, and {data.name} has {data.num_classes}: give the data it was "
            "trained on (--data)."
        )
    return classification_report(logits(trained, data, progress).argmax(1), data.labels)


def clustering(trained: Trained, data: Dataset, progress: bool) -> ClusteringReport | None:
    """Of recipes that find categories without labels; None for others."""
    if data.labels is None or any(isinstance(column, Labels) for column in trained.recipe.columns.values()):
        return None
    found = logits(trained, data, progress)
    return clustering_report(found.argmax(1), data.labels, found.shape[1], data.num_classes)


@torch.no_grad()
def logits(trained: Trained, data: Dataset, progress: bool) -> Tensor:
    """What ``classify`` says of each row of ``data``, [N, K] on the CPU."""
    column = data.column_of(next(iter(trained.recipe.columns.values())))
    parts = tqdm(data.columns[column].split(PART), "classify", delay=1, leave=False, disable=not progress)
    return torch.cat([trained.classify(decode(column, part).to(trained.device)).cpu() for part in parts])


# (metric, the ability of the recipe that it needs or None, what makes the report of trained, data and whether to show
# progress)
SCORES: list[tuple[str, str | None, Callable[[Trained, Dataset, bool], Report | None]]] = [
    ("bound", "bound", lambda trained, data, progress: bound_report(trained.bound, data, trained.device, progress)),
    ("classification", "classify", classification),
    ("clustering", "classify", clustering),
    ("codes", None, codes.report),
]


def reports(
    trained: Trained, data: Dataset, own: Dataset | None = None, progress: bool = True
) -> dict[str, Report]:  # fmt: skip
    """By metric, those that the recipe's abilities and the data allow; a report of None was not possible.

    ``own``: the data that ``trained`` was trained on, where ``data`` is another part of it.
    """
    possible = [(metric, make) for metric, ability, make in SCORES if ability is None or trained.can(ability)]
    found = {metric: make(trained, data, progress) for metric, make in possible}
    if trained.can("encode"):
        found["representation"] = representing.report(trained, data, own, progress)
    return {metric: report for metric, report in found.items() if report is not None}
