"""``ganfast report``: one page on a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ganfast.report import write


@dataclass(kw_only=True)
class Report:
    """One HTML page on a run under way, finished or broken, to read and to send."""

    run_directory: Annotated[Path, tyro.conf.arg(metavar="RUN"), tyro.conf.Positional]
    """a run directory, as runs/00000-dcgan-digits"""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html", aliases=["-o"])] = None
    """the file to write; RUN/report.html by default"""

    def run(self) -> None:
        file = self.output or self.run_directory / "report.html"
        missing = write(self.run_directory, file)
        print(f"wrote {file} ({file.stat().st_size / 1000:,.0f} kB)", *missing, sep="\n")
