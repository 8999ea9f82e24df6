"""Scores of what a recipe can do besides sampling: classify, encode, bound a likelihood, vary codes."""

from collections.abc import Callable

from ganfast.data import Dataset
from ganfast.metrics import bound_report
from ganfast.recipes import Trained
from ganfast.training.scoring import Report

# (metric, the ability of the recipe that it needs, what makes the report of trained, data and whether to show progress)
SCORES: list[tuple[str, str, Callable[[Trained, Dataset, bool], Report]]] = [
    ("bound", "bound", lambda trained, data, progress: bound_report(trained.bound, data, trained.device, progress)),
]


def reports(trained: Trained, data: Dataset, progress: bool = True) -> dict[str, Report]:
    """By metric, those that the recipe's abilities and the data allow; a report of None was not possible."""
    found = {metric: make(trained, data, progress) for metric, ability, make in SCORES if trained.can(ability)}
    return {metric: report for metric, report in found.items() if report is not None}
