"""The GPU tests need nothing that a bare machine with torch, triton and pytest lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABSENT = (
    "tyro",
    "safetensors",
    "PIL",
    "tqdm",
    "sklearn",
    "matplotlib",
    "tensorboard",
    "pybind11",
    "ninja",
    "setuptools",
)
CODE = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None
import pytest
sys.exit(pytest.main(["-m", "gpu", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/ops", "tests/kernels"]))
"""


def test_the_gpu_tests_are_collected_without_what_only_the_rest_needs():
    pytest.importorskip("triton")
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "test_graph_replay_equals_eager" in run.stdout
    assert "test_no_kernel_leaves_its_memory" in run.stdout
