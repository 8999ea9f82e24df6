"""Scores of what a recipe can do besides sampling: classify, encode, bound a likelihood, vary codes."""

from collections.abc import Callable

import torch
from torch import Tensor

from ganfast.data import Dataset, Labels
from ganfast.metrics import bound_report
from ganfast.metrics.classification import (
    ClassificationReport,
    ClusteringReport,
    classification_report,
    clustering_report,
)
from ganfast.recipes import Trained
from ganfast.training import codes, representing, sampling
from ganfast.training.scoring import Report, check_classes_of


def classification(trained: Trained, data: Dataset, progress: bool) -> ClassificationReport | None:
    """Of recipes that learn from labels; None for others."""
    own = [trained.specs[name].classes for name, column in trained.recipe.columns.items() if isinstance(column, Labels)]
    if not own or data.labels is None:
        return None
    check_classes_of(own[0], data)
    return classification_report(logits(trained, data, progress).argmax(1), data.labels)


def clustering(trained: Trained, data: Dataset, progress: bool) -> ClusteringReport | None:
    """Of recipes that find categories without labels; None for others."""
    if data.labels is None or any(isinstance(column, Labels) for column in trained.recipe.columns.values()):
        return None
    found = logits(trained, data, progress)
    return clustering_report(found.argmax(1), data.labels, found.shape[1], data.num_classes)


def logits(trained: Trained, data: Dataset, progress: bool) -> Tensor:
    """What ``classify`` says of each row of ``data``, [N, K] on the CPU."""
    return sampling.of_data(trained, trained.classify, data, torch.arange(len(data)), "classify", progress)


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
