"""Kernels on awkward sizes under compute-sanitizer: no access beyond what is theirs."""

import os
import shutil
import subprocess
import sys

import pytest

launches = pytest.importorskip("launches")

# The caching allocator would put other tensors' memory where an access beyond the end falls.
CODE = """
import sys
import torch
sys.path.insert(0, "tools")
import launches
from ganfast import ops
from ganfast.ops._registry import OPS, available

op, device = launches.declared()[sys.argv[1]], torch.device("cuda", 0)
ran = set()
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    def t(*shape, dtype=dtype):
        return torch.randn(shape, device=device).to(dtype)

    for sizes in op.AWKWARD:
        for name, args in op.calls(t, *sizes):
            for backend in OPS[name].backends:
                if backend.device == "cuda" and available(backend.name, device) is True:
                    if backend.supports(*args) is True:
                        backend.run(*args)
                        ran.add(backend.name)
            torch.cuda.synchronize()
print("ran", *sorted(ran))
"""


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("op", launches.declared())
def test_no_kernel_leaves_its_memory(op):
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        pytest.skip("no compute-sanitizer on PATH or in /usr/local/cuda/bin")
    command = [sanitizer, "--tool", "memcheck", "--error-exitcode", "99", sys.executable, "-c", CODE, op]
    env = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    root = launches.__path__[0] + "/../.."
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, env=env, timeout=600)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "ERROR SUMMARY: 0 errors" in run.stdout
    assert "ran " in run.stdout and "triton" in run.stdout.split("ran ")[1]
