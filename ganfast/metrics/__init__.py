"""How far a generator is from the data."""

from ganfast.metrics.bound import BoundReport, bound_report
from ganfast.metrics.classes import ClassReport, check_classes, check_shape, class_report
from ganfast.metrics.modes import ModeReport, mode_report
from ganfast.metrics.neighbours import Neighbours, neighbours
from ganfast.metrics.parzen import ParzenReport, parzen_report
from ganfast.metrics.scores import ScoreReport, score_report, usable
from ganfast.metrics.stacked import StackedReport, stacked_report

__all__ = [
    "BoundReport", "ClassReport", "ModeReport", "Neighbours", "ParzenReport", "ScoreReport", "StackedReport",
    "bound_report", "check_classes", "check_shape", "class_report", "mode_report", "neighbours", "parzen_report",
    "score_report", "stacked_report", "usable",
]  # fmt: skip
