"""How far a generator is from the data."""

from ganfast.metrics.classes import ClassReport, check_classes, check_shape, class_report
from ganfast.metrics.codes import CodesReport, code_effects, codes_report
from ganfast.metrics.modes import ModeReport, mode_report
from ganfast.metrics.neighbours import Neighbours, neighbours
from ganfast.metrics.scores import ScoreReport, score_report, usable
from ganfast.metrics.stacked import StackedReport, stacked_report

__all__ = [
    "ClassReport", "CodesReport", "ModeReport", "Neighbours", "ScoreReport", "StackedReport", "check_classes", "check_shape",
    "class_report", "mode_report", "neighbours", "score_report", "stacked_report", "usable",
]  # fmt: skip
