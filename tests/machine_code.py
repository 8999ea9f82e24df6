"""Compile kernels for chips that are not here and read what the compiler made of them."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def triton_compile(kernel, signature: dict, constants: dict, arch: int, num_warps: int, divisible=()):
    """The compiled Triton kernel for sm_`arch`; pointers are 16-byte aligned, `divisible` numbers multiples of 16."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else signature[name] for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name].startswith("*") or name in divisible
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": num_warps})


def triton_tool(name: str) -> str:
    """A tool of CUDA that Triton's wheel carries, else one on PATH."""
    triton = pytest.importorskip("triton")
    inside = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    path = str(inside) if inside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}: neither Triton's wheel nor PATH has it")
    return path


def sass(cubin: bytes, folder: Path) -> str:
    """The machine code as text."""
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    return subprocess.check_output([triton_tool("cuobjdump"), "-sass", str(file)], text=True)


def global_loads(text: str) -> Counter:
    """How many global loads there are of each width in bits."""
    widths = {"": 32, ".64": 64, ".128": 128, ".U16": 16, ".S16": 16, ".U8": 8}
    found = re.findall(r"\bLDG\.E(?:\.\w+)*?(\.128|\.64|\.U16|\.S16|\.U8|)(?:\.CONSTANT)? ", text)
    return Counter(widths[w] for w in found)


def nvcc_resources(source: Path, arch: str, folder: Path) -> list:
    """(function, registers, spilled bytes) of every kernel of a .cu file compiled for sm_`arch`."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("no nvcc on this machine")
    command = [nvcc, "-std=c++17", "-O3", f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v"]
    run = subprocess.run([*command, "-o", folder / "out.cubin", source], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers", run.stderr, re.S
    )
    return [(name, int(registers), int(spilled)) for name, spilled, registers in found]
