"""Kernels without a GPU: the Triton that is installed and, beside it, 3.6, the oldest that ganfast takes."""

import contextlib
import functools
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIDE = Path(sys.prefix) / "triton-3.6"  # with a numpy of its own: 3.6's interpreter fails with numpy ≥ 2.4
ABSENT = f"Triton 3.6 is not in {SIDE}: `make test` and `make kernels` put it there"


@functools.cache
def version(package: str) -> tuple:
    return tuple(int(part) for part in importlib.metadata.version(package).split(".")[:2])


@pytest.fixture(scope="session")
def side() -> Path:
    """The folder of Triton 3.6."""
    pytest.importorskip("triton")
    if version("triton") == (3, 6):
        pytest.skip("the installed Triton is 3.6")
    if not (SIDE / "triton").is_dir():
        pytest.skip(ABSENT)
    return SIDE


@pytest.fixture(scope="session")
def interpreters():
    """interpreters(folder of Triton 3.6 or None): the process of that Triton's interpreter, see interpreter.py."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    @functools.cache
    def started(folder):
        path = os.pathsep.join(map(str, filter(None, [folder, ROOT, os.environ.get("PYTHONPATH")])))
        env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
        command = [sys.executable, Path(__file__).with_name("interpreter.py")]
        return stack.enter_context(subprocess.Popen(command, text=True, env=env, **pipes))

    with contextlib.ExitStack() as stack:
        yield started


@pytest.fixture(params=["installed", "3.6"])
def interpret(request, interpreters):
    """interpret(module, function, *arguments) runs that function of interpreted/ in Triton's interpreter.

    The arguments are what JSON can hold.
    """
    pytest.importorskip("triton")
    folder = request.getfixturevalue("side") if request.param == "3.6" else None
    if folder is None and version("triton") == (3, 6) and version("numpy") >= (2, 4):
        pytest.skip("Triton 3.6's interpreter fails with numpy 2.4 and later")

    def run(module: str, function: str, *arguments) -> None:
        process, output, status = interpreters(folder), [], "the interpreter has ended"
        print(json.dumps([module, function, arguments]), file=process.stdin, flush=True)
        for line in process.stdout:
            if line.startswith("status "):
                status = line.strip()
                break
            output.append(line)
        assert status == "status 0", "".join([*output, status])

    return run


@pytest.fixture(scope="session")
def gate_rows():
    """gate_rows(op, arch): the gate's rows under the installed Triton; gate_rows(op, arch, "cuda"): nvcc's."""
    gate = pytest.importorskip("gate")

    @functools.cache
    def rows(op: str, arch: str, compiler: str = "triton") -> list:
        file = Path(os.environ["GANFAST_CACHE"]) / f"gate-{compiler}-{op}-{arch}.json"  # the other workers' too
        if not file.exists():
            try:
                found = gate.cuda_rows(op, (arch,)) if compiler == "cuda" else gate.triton_rows(op, (arch,))
            except gate.machine_code.ToolMissing as reason:
                pytest.skip(str(reason))
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps(found))
            part.rename(file)
        return json.loads(file.read_text(), object_hook=gate.numbers)

    return rows
