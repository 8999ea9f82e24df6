"""One self-contained HTML page on a run directory: what was asked for, how it went, what came of it."""

from ganfast.report.page import write

__all__ = ["write"]
