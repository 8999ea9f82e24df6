"""Kernels on awkward sizes under compute-sanitizer: no access beyond what is theirs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

launches = pytest.importorskip("launches")

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments) -> list:
    return [sys.executable, Path(__file__).with_name("awkward_sizes.py"), *arguments]


def environment() -> dict:
    path = os.pathsep.join(map(str, filter(None, [ROOT, ROOT / "tools", os.environ.get("PYTHONPATH")])))
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("op", launches.declared())
def test_no_kernel_leaves_its_memory(op):
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        pytest.skip("no compute-sanitizer on PATH or in /usr/local/cuda/bin")
    checked = [sanitizer, "--tool", "memcheck", "--error-exitcode", "99", *command(op)]
    # the caching allocator would put other tensors' memory where an access beyond the end falls
    env = environment() | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    run = subprocess.run(checked, capture_output=True, text=True, cwd=ROOT, env=env, timeout=600)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "ERROR SUMMARY: 0 errors" in run.stdout
    assert "ran " in run.stdout and "triton" in run.stdout.split("ran ")[1]


def test_awkward_sizes_run_without_a_gpu_too():
    pytest.importorskip("ganfast._C")
    run = subprocess.run(command("sigmoid_bce", "cpu"), capture_output=True, text=True, cwd=ROOT, env=environment())
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == "ran cpu\n"
