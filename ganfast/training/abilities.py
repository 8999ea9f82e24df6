"""Scores of what a recipe can do besides sampling: classify, encode, bound a likelihood, vary codes."""

from collections.abc import Callable

from ganfast.data import Dataset
from ganfast.recipes import Trained
from ganfast.training import representing
from ganfast.training.scoring import Report

# (metric, the ability of the recipe that it needs, what makes the report of trained, data and whether to show progress)
SCORES: list[tuple[str, str, Callable[[Trained, Dataset, bool], Report]]] = []


def reports(
    trained: Trained, data: Dataset, own: Dataset | None = None, progress: bool = True
) -> dict[str, Report]:  # fmt: skip
    """By metric, those that the recipe's abilities and the data allow; a report of None was not possible.

    ``own``: the data that ``trained`` was trained on, where ``data`` is another part of it.
    """
    found = {metric: make(trained, data, progress) for metric, ability, make in SCORES if trained.can(ability)}
    if trained.can("encode"):
        found["representation"] = representing.report(trained, data, own, progress)
    return {metric: report for metric, report in found.items() if report is not None}
