"""Kernels without a GPU: the Triton that is installed and, beside it, 3.6, the oldest that ganfast takes."""

import contextlib
import functools
import importlib.metadata
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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


# reads programs, each a line of JSON, and runs each in a fork of its own: torch and Triton are imported once
INTERPRETER = """
import json, os, sys
import triton.runtime.interpreter as interpreter
from ganfast import ops, reference

class Kept:
    restore = staticmethod(int)

def once(fn, patch=interpreter._patch_lang, seen=set()):
    if fn.__module__ not in seen:
        seen.add(fn.__module__)
        patch(fn)
    return Kept

# two thirds of the interpreter's time: triton.language is patched anew in every call of a function, and whether
# integers overflow is computed and, without debug=True, not looked at
interpreter._patch_lang = once
interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)
for line in sys.stdin:
    if not (child := os.fork()):
        exec(compile(json.loads(line), "program", "exec"), {})
        sys.exit()
    print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def interpreters():
    """interpreters(side's folder or None): the process of that Triton's interpreter."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    @functools.cache
    def started(path):
        env = {**os.environ, "TRITON_INTERPRET": "1"} | ({"PYTHONPATH": str(path)} if path else {})
        return stack.enter_context(subprocess.Popen([sys.executable, "-c", INTERPRETER], text=True, env=env, **pipes))

    with contextlib.ExitStack() as stack:
        yield started


@pytest.fixture(params=["installed", "3.6"])
def interpret(request, interpreters):
    """interpret(*parts of a program): runs it in Triton's interpreter."""
    pytest.importorskip("triton")
    path = request.getfixturevalue("side") if request.param == "3.6" else None
    if path is None and version("triton") == (3, 6) and version("numpy") >= (2, 4):
        pytest.skip("Triton 3.6's interpreter fails with numpy 2.4 and later")

    def run(*parts: str) -> None:
        process, said = interpreters(path), []
        print(json.dumps("\n".join(map(textwrap.dedent, parts))), file=process.stdin, flush=True)
        for line in process.stdout:
            if line.startswith("status "):
                break
            said.append(line)
        assert line == "status 0\n", "".join(said)

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
