"""The tests of tests/ops on csrc/cuda, which runs on the CPU (plugin.py): every operator that has a CUDA file."""

import os
import re
import subprocess
import sys

import pytest
from cuda_on_cpu import build

FILES = {path.stem: path for path in sorted(build.CSRC.glob("cuda/*.cu")) if "<<<" in path.read_text()}


def run_tests(operator, library, *options):
    """pytest on the operator's tests, with the library's CUDA half."""
    files = sorted(str(path) for path in (build.ROOT / "tests" / "ops").glob(f"test_{operator}*.py"))
    assert files, f"csrc/cuda/{operator}.cu has no tests/ops/test_{operator}.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "cuda_on_cpu.plugin",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
    ]
    command += ["-q", "--tb=short", "-m", "not gpu", *options, *files]
    env = {**os.environ, "CUDA_ON_CPU": str(library), "PYTHONPATH": str(build.ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    env.pop("GANFAST_BACKEND", None)
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=build.ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("operator", FILES)
def test_its_tests_pass(operator, emulated_extension):
    run = run_tests(operator, emulated_extension)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    text = FILES[operator].read_text()
    launches = {text.count("\n", 0, match.start()) + 1 for match in re.finditer("<<<", text)}
    launched = re.findall(rf"launched: {operator}\.cu:(\d+)", run.stdout)
    assert launches == set(map(int, launched)), "a launch that no test makes"
