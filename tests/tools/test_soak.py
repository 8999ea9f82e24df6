"""The soak test itself, in its short form: every fault ends with one sentence and nothing that was saved is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_short_soak_loses_nothing():
    """Kills, disks that fail and signals, for real; the terminal's cases start processes of their own and are few."""
    cases = ["kills-at-operations", "failing-operations", "full-disk", "signals", "not-a-number", "terminals"]
    command = [sys.executable, ROOT / "tools" / "soak" / "soak.py", "--short", *cases]
    ended = subprocess.run(command, capture_output=True, text=True)
    print(ended.stdout, ended.stderr)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "tries  lost" in ended.stdout
