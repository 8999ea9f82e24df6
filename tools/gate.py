"""The kernel gate: compiles every kernel for several chips, without a GPU, and reports on the machine code.

    python tools/gate.py [op …] [--archs 80 90 100] [--triton FOLDER] [--json FILE]

Triton kernels come from the launches that ``tools/launches/`` declares, CUDA kernels from all of csrc/cuda/<op>.cu. A
row has registers, shared memory, spills, resident blocks, the widths of the main path's loads and stores, its
instructions, and the bound that follows (tools/chips.py). Faults, listed last, make the exit code 1. docs/kernels.md
says how to read it.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import chips
import launches
import machine_code

ROOT = machine_code.ROOT
CUDA = {"80": "80", "90": "90a"}  # chip → what nvcc compiles for
ITEM = {"fp32": 4, "fp16": 2, "bf16": 2}
CPP_TYPES = {"float": "fp32", "__half": "fp16", "__nv_bfloat16": "bf16"}
MAX_SHARED = {"80": 163 * 1024, "90": 227 * 1024, "100": 227 * 1024}  # of a block


# --- rows -------------------------------------------------------------------------------------------------------------


def _counts(element):
    """What an instruction contributes to an element of the main loop; see launches/__init__.py."""
    if isinstance(element, int):
        return lambda i: i.width // 8 if i.kind in ("LDG", "LDGSTS") else 0
    return lambda i: int(element is not None and i.opcode.startswith(element))


def _first_match(patterns: dict, row: dict):
    """(whether a pattern fits the kernel and its configuration, what the first that does is declared to be)."""
    for pattern, value in patterns.items():
        if re.search(pattern, f"{row['kernel']} {row['configuration']}"):
            return True, value
    return False, None


def _elements(element, path, dtype) -> float:
    """Elements of a pass of the main loop by one warp."""
    if isinstance(element, int):
        widths = path.widths("LDG", "LDGSTS")
        most = max((bits * n for bits, n in widths.items()), default=0)  # loads of other widths read scalars
        return 32 * most / 8 / (element * ITEM[dtype])
    return 32 * sum(map(_counts(element), path.code))


def _row(declaration, function, arch: str, dynamic_shared: int, **where) -> dict:
    """The report on one compiled kernel; `where`: op, kernel, configuration, dtype, compiler."""
    chip = chips.CHIPS[arch]
    _, element = _first_match(declaration.ELEMENT, where)
    path = machine_code.main_path(function, _counts(element))
    # from sm_90 on the static part has the system's share in it
    static = max(function.shared - chips.RESERVED_SHARED, 0) if arch != "80" else function.shared
    shared = static + dynamic_shared
    row = {
        **where, "chip": chip.name, "arch": arch, "threads": function.threads, "registers": function.registers,
        "shared": shared, "spills": function.spills, "stack": function.stack + function.local,
        "atomics": function.atomics, "blocks": None, "loop": path.loop, "loads": dict(path.widths("LDG", "LDGSTS")),
        "stores": dict(path.widths("STG")), "mix": machine_code.mix(path.code), "elements": 0.0, "bound": {},
        "limit": None,
    }  # fmt: skip
    if function.threads:
        row["blocks"] = chips.resident_blocks(chip, function.threads, function.registers, shared)
    if element is not None:
        row["elements"] = _elements(element, path, where["dtype"])
        moved = sum(bits // 8 * n for bits, n in (path.widths("LDG", "LDGSTS") + path.widths("STG")).items())
        found = chips.cycles(chip, row["mix"], moved if isinstance(element, int) else 0)
        if row["elements"]:
            row["bound"] = {name: value / row["elements"] for name, value in found.items() if value}
            row["limit"] = max(row["bound"], key=row["bound"].get)
    row["faults"] = faults(declaration, row)
    return row


def faults(declaration, row: dict) -> list[str]:
    """The rules that a kernel breaks, in words."""
    found = []
    declared, element = _first_match(declaration.ELEMENT, row)
    if not declared:
        found.append(f"tools/launches/{row['op']}.py does not declare {row['kernel']} in ELEMENT")
    if row["spills"] or row["stack"]:
        found.append(f"{row['spills']} accesses to local memory, {row['stack']} bytes of stack")
    if row["atomics"]:
        found.append(f"{row['atomics']} atomics: the order of a sum would change from run to run")
    if row["threads"] is None:
        found.append("a block's threads are not known: give it __launch_bounds__")
    if row["blocks"] == 0 or row["shared"] > MAX_SHARED[row["arch"]]:
        found.append(f"{row['registers']} registers and {row['shared']} bytes of shared memory: no block fits")
    if element is None:
        return found
    if not row["elements"]:
        found.append(f"its main path has no element as declared: {element!r}")
    excused, _ = _first_match(getattr(declaration, "NARROW", {}), row)
    for what in ("loads", "stores"):
        narrow = sum(n for bits, n in row[what].items() if bits < 32)
        if narrow and not excused:
            found.append(f"{narrow} global {what} of less than 4 bytes in the main path")
    return found


def triton_rows(op: str, archs=("80", "90", "100")) -> list[dict]:
    """The rows of an operator's Triton kernels under the Triton that is imported."""
    import torch

    declaration = launches.declared()[op]
    found: dict[launches.Launch, None] = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found |= dict.fromkeys(launches.triton_launches(declaration, dtype))
    compiler = f"triton {importlib.metadata.version('triton')}"
    rows = []
    for arch in archs:
        compiled = [machine_code.triton_cubin(launch, arch) for launch in found]
        functions = machine_code.read([cubin for cubin, _ in compiled], arch)
        for launch, (_, dynamic), (function,) in zip(found, compiled, functions):
            where = {"op": op, "kernel": launch.name, "configuration": launch.describe(), "dtype": launch.dtype}
            rows.append(_row(declaration, function, arch, dynamic, compiler=compiler, **where))
    return rows


def _plain_names(names: list[str]) -> list[tuple]:
    """(kernel, template arguments, dtype) of mangled C++ names."""
    if shutil.which("c++filt") is None:
        raise machine_code.ToolMissing("no c++filt, which comes with g++")
    text = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True).stdout
    found = []
    for line in text.splitlines():
        line = line.replace("(anonymous namespace)::", "").replace("ganfast::cuda::", "")
        name, arguments = re.search(r"(\w+)(<.*>)?\(", line).groups()
        dtype = next(
            (ours for theirs, ours in CPP_TYPES.items() if re.search(rf"\b{theirs}\b", arguments or "")), "fp32"
        )
        found.append((name, (arguments or "").strip("<>"), dtype))
    return found


def cuda_rows(op: str, archs=("80", "90")) -> list[dict]:
    """The rows of csrc/cuda/<op>.cu; none where there is no such file."""
    source = ROOT / "csrc" / "cuda" / f"{op}.cu"
    if not source.exists():
        return []
    declaration = launches.declared()[op]
    version = subprocess.run([machine_code.nvcc(), "--version"], capture_output=True, text=True, check=True).stdout
    compiler = "nvcc " + re.search(r"release ([\d.]+)", version)[1]
    rows = []
    for arch in (a for a in archs if a in CUDA):
        (functions,) = machine_code.read([machine_code.nvcc_cubin(source, CUDA[arch])], arch)
        for function, (name, configuration, dtype) in zip(functions, _plain_names([f.name for f in functions])):
            where = {"op": op, "kernel": name, "configuration": configuration, "dtype": dtype}
            rows.append(_row(declaration, function, arch, 0, compiler=compiler, **where))
    return rows


def side_rows(folder: Path, ops, archs) -> list[dict]:
    """The Triton rows under the Triton in `folder`, which comes first on the path of another Python."""
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "rows.json"
        command = [sys.executable, __file__, *ops, "--archs", *archs, "--no-cuda", "--json", output]
        run = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, cwd=ROOT
        )
        if not output.exists():
            raise RuntimeError(f"the gate under {folder} failed: {run.stderr[-2000:]}")
        return json.loads(output.read_text(), object_hook=numbers)


def numbers(row: dict) -> dict:
    """A decoded JSON object with its widths as numbers again."""
    return {int(k) if k.isdigit() else k: v for k, v in row.items()}


# --- the table --------------------------------------------------------------------------------------------------------

HEAD = ("chip", "compiler", "regs", "shared", "spills", "blocks", "loads", "stores", "cycles an element", "main path")


def _widths(found: dict) -> str:
    return " ".join(f"{n}×{bits}" for bits, n in sorted(found.items(), reverse=True)) or "-"


def _cells(row: dict) -> tuple:
    blocks = f"{row['blocks']}×{row['threads']}" if row["threads"] else "?"
    mix = " ".join(f"{group} {n}" for group, n in row["mix"].items())
    top = sorted(row["bound"].items(), key=lambda item: -item[1])[:3]
    return (
        row["chip"], row["compiler"], str(row["registers"]), str(row["shared"]), str(row["spills"] + row["stack"]),
        blocks, _widths(row["loads"]), _widths(row["stores"]), ", ".join(f"{k} {v:.3f}" for k, v in top) or "-",
        ("loop: " if row["loop"] else "") + mix,
    )  # fmt: skip


def table(rows: list[dict]) -> str:
    """A heading for each kernel, configuration and dtype, a line for each chip and compiler."""
    cells = {id(row): _cells(row) for row in rows}
    widths = [max(map(len, column)) for column in zip(HEAD, *cells.values())]
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in ("op", "kernel", "configuration", "dtype")), []).append(cells[id(row)])
    lines = [HEAD]
    for group, members in groups.items():
        lines += [("\n" + " ".join(word for word in group if word),), *members]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def all_rows(options) -> list[dict]:
    """The rows that the command line asks for; operators are compiled in parallel."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(triton_rows, op, options.archs) for op in options.ops]
        if options.triton:
            jobs += [pool.submit(side_rows, options.triton, [op], options.archs) for op in options.ops]
        cuda = [] if options.no_cuda else [pool.submit(cuda_rows, op, options.archs) for op in options.ops]
        rows = [row for job in jobs for row in job.result()]
        try:
            return rows + [row for job in cuda for row in job.result()]
        except machine_code.ToolMissing as reason:
            print(f"CUDA kernels are skipped: {reason}", file=sys.stderr)
            return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ops", nargs="*", default=list(launches.declared()), help="operators (default: all)")
    parser.add_argument("--archs", nargs="+", default=list(chips.CHIPS), choices=list(chips.CHIPS))
    parser.add_argument("--triton", type=Path, help="a folder with a second Triton to compile with as well")
    parser.add_argument("--no-cuda", action="store_true", help="skip the CUDA kernels")
    parser.add_argument("--json", type=Path, help="a file to write the rows to")
    options = parser.parse_args()
    rows = all_rows(options)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    limits = Counter(f"{row['limit']} limits" for row in rows if row["limit"])
    print(f"\n{len(rows)} rows;", ", ".join(f"{what} {n}" for what, n in limits.most_common()))
    bad = [(row, fault) for row in rows for fault in row["faults"]]
    for row, fault in bad:
        names = ("op", "kernel", "configuration", "dtype", "chip", "compiler")
        print("FAULT", " ".join(row[name] for name in names) + f": {fault}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
