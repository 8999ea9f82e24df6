"""A results file: environment, calibration and rows. It is written anew after each row: what is measured is kept.

python bench/store.py      prints the revision that is measured; without torch, whose import takes seconds
"""

import json
import os
import subprocess
from pathlib import Path

from parts import ROOT, device_of

IDENTITY = ("revision", "cpu", "gpu", "torch", "triton")  # rows of one file agree in these


def output(*command) -> str:
    """What a command prints, or "" where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def revision() -> str:
    """The commit, with "+" where tracked sources differ from it; GANFAST_REVISION where git is not there."""
    commit = output("git", "rev-parse", "--short=12", "HEAD")
    if not commit:
        return os.environ.get("GANFAST_REVISION", "unknown")[:12]
    sources = ("ganfast", "kernels", "csrc", "bench/*.py", "tools/launches", "setup.py")
    return commit + ("+" if output("git", "status", "--porcelain", "--untracked-files=no", "--", *sources) else "")


class Mismatch(Exception):
    """A results file of another machine or revision, or of none."""


class Results:
    """Rows by name. With a file that exists, its rows are there already."""

    def __init__(self, path=None, environment=None):
        self.path = Path(path) if path else None
        if self.path and environment and environment["revision"] == "unknown":
            raise Mismatch(f"{self.path}: no .git here: set GANFAST_REVISION to the commit that is measured")
        self.data = {"environment": environment or {}, "calibration": {}, "rows": {}}
        if self.path and self.path.exists():
            self.data = json.loads(self.path.read_text())
            self._agree(environment)

    def _agree(self, environment):
        before = self.data["environment"]
        for key in IDENTITY if environment else ():
            if before.get(key) != environment.get(key):
                raise Mismatch(
                    f"{self.path} holds results of {key} {before.get(key)!r}, this run has {environment.get(key)!r}: "
                    "give another file, or remove it"
                )

    @property
    def rows(self) -> dict:
        return self.data["rows"]

    def measured(self, name: str) -> bool:
        return "seconds" in self.rows.get(name, {})

    def calibrate(self, device: str, measure) -> dict:
        """The calibration of a device: the file's, or measure(device)."""
        if device not in self.data["calibration"]:
            self.data["calibration"][device] = measure(device)
            self.write()
        return self.data["calibration"][device]

    def recalibrate(self, device: str, calibration: dict, with_floor) -> None:
        """Another calibration of a device; its rows get their floors anew: with_floor(row, calibration)."""
        self.data["calibration"][device] = calibration
        for name, row in self.rows.items():
            if "seconds" in row and device_of(row["place"]) == device:
                self.rows[name] = with_floor(row, calibration)
        self.write()

    def add(self, name: str, row: dict) -> None:
        self.rows[name] = row
        self.write()

    def write(self) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            from ganfast.files import replacing

            with replacing(self.path) as partial:
                partial.write_text(json.dumps(self.data, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    print(revision())
