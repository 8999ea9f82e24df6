"""How far a generator is from the data."""

from ganfast.metrics.classes import ClassReport, check_classes, class_report
from ganfast.metrics.modes import ModeReport, mode_report

__all__ = ["ClassReport", "ModeReport", "check_classes", "class_report", "mode_report"]
