"""A session of pytest itself: what it leaves alone, and that its order and random numbers can be repeated."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CACHES = (
    "GANFAST_CACHE", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TRITON_HOME", "XDG_CACHE_HOME",
)  # fmt: skip
LIGHT = [word for plugin in ("hypothesispytest", "typeguard", "benchmark") for word in ("-p", f"no:{plugin}")]


def pytest_run(*arguments, **environment) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(command, cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
def test_a_persons_caches_are_neither_read_nor_written(tmp_path):
    """By tests that measure choices, draw and compile, in a worker; the caches of before are all in one folder."""
    theirs = {"HOME": str(tmp_path), **{name: str(tmp_path / name) for name in CACHES}}
    pytest_run(
        "-n1", "tests/test_fuse.py::test_equal_by_the_operators",
        "tests/kernels/test_sigmoid_bce.py::test_triton_reads_and_writes_four_elements_at_once[90]",
        "tests/training/test_monitor.py::test_losses_are_drawn_though_older_rows_lack_a_column", **theirs,
    )  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == []


def test_a_seed_repeats_the_order():
    pytest.importorskip("pytest_randomly")
    orders = []
    for how in ("--randomly-seed=1", "--randomly-seed=1", "--randomly-dont-reorganize"):
        listed = pytest_run("--collect-only", "-q", *LIGHT, how, "tests/data/test_packed.py")
        orders.append(re.findall(r"^\S+::\S+", listed, re.M))
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])
