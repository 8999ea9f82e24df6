"""Scores of what a recipe can do besides sampling: classify, encode, bound a likelihood, vary codes."""

from collections.abc import Callable

from ganfast.data import Dataset
from ganfast.recipes import Trained
from ganfast.training import codes
from ganfast.training.scoring import Report

# (metric, the ability of the recipe that it needs, or None, what makes the report of trained, data and whether to show
# progress)
SCORES: list[tuple[str, str | None, Callable[[Trained, Dataset, bool], Report | None]]] = [
    ("codes", None, codes.report),
]


def reports(trained: Trained, data: Dataset, progress: bool = True) -> dict[str, Report]:
    """By metric, those that the recipe's abilities and the data allow; a report of None was not possible."""
    possible = [(metric, make) for metric, ability, make in SCORES if ability is None or trained.can(ability)]
    found = {metric: make(trained, data, progress) for metric, make in possible}
    return {metric: report for metric, report in found.items() if report is not None}
