"""The best constants of the Triton kernels on this GPU: tries what bench/launches/<op>.py lists in TUNE.

    python bench/tune.py --minutes 5 --write          # the winners go to kernels/tuned.py, which the kernels read
    python bench/tune.py interpolate --arch 90        # without a GPU: what would be tried, with the machine code

Each configuration is compiled and its machine code read (registers, shared memory, spills: one that spills is not
timed), checked against the plain reference, and timed in turns with the constants that stand, on all declared sizes, in
fp32 and bf16; its score is the geometric mean of the ratios. The table is written to --results as it goes.
"""

import argparse
import importlib
import itertools
import json
import math
import sys
import time
from pathlib import Path

import calibrate
import frame
import gate
import launches
import torch
from machine_code import ToolMissing

ROOT = Path(__file__).resolve().parent.parent
TUNED = ROOT / "kernels" / "tuned.py"
WORTH = 0.97  # a winner must be this much better than what stands
DTYPES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # and how near the reference results must be
HEAD = "TABLE: dict = "


def configurations(module, tune: dict) -> list[dict]:
    """All combinations; what stands in the module comes first."""
    stands = {name: getattr(module, name) for name in tune}
    found = [dict(zip(tune, values)) for values in itertools.product(*tune.values())]
    return [stands, *(c for c in found if c != stands)]


class Constants:
    """Within, the kernels of the module are launched with these constants."""

    def __init__(self, module, values):
        self.module, self.values = module, values

    def __enter__(self):
        self.before = {name: getattr(self.module, name) for name in self.values}
        vars(self.module).update(self.values)

    def __exit__(self, *_):
        vars(self.module).update(self.before)


def report(op: str, arch: str) -> dict | None:
    """The largest of registers, shared memory and spills among the operator's kernels; None without the tools."""
    try:
        rows = gate.triton_rows(op, [arch])
    except ToolMissing:
        return None
    return {
        "registers": max(row["registers"] for row in rows),
        "shared": max(row["shared"] for row in rows),
        "spills": sum(row["spills"] + row["stack"] for row in rows),
        "kernels": len(rows),
    }


def cases(op: str) -> list[tuple]:
    """(name, run, arguments, bound of the error, reference) of each declared call, on the GPU."""
    from ganfast.ops._registry import OPS

    declaration, found = launches.declared()[op], []
    for dtype, bound in DTYPES.items():

        def tensor(*shape, dtype=dtype):
            return torch.rand(shape, device="cuda").add(0.1).to(dtype)

        for sizes in declaration.SIZES:
            for name, args in declaration.calls(tensor, *sizes):
                backend = next(b for b in OPS[name].backends if b.name == "triton")
                found.append((f"{name} {sizes} {dtype}", backend.run, args, bound, OPS[name].reference))
    return found


def _tensors(result) -> list:
    return [
        x for x in (result if isinstance(result, tuple) else (result,)) if isinstance(x, torch.Tensor) and x.numel()
    ]


def score(module, stands: dict, candidate: dict, found: list) -> dict:
    """Ratios of the candidate's times to those of what stands; AssertionError where it computes something else."""
    ratios = {}
    for name, run, args, bound, reference in found:
        wide = [a.double() if isinstance(a, torch.Tensor) else a for a in args]
        with Constants(module, candidate):
            got = _tensors(run(*args))
            theirs = frame.Timer(lambda: run(*args), [()], "graph")  # noqa: B023  captured at once
        for a, b in zip(got, _tensors(reference(*wide)), strict=True):
            error = frame.distance(a, b)
            assert error <= bound, f"{name} with {candidate}: relative error {error:.2g}, at most {bound}"
        with Constants(module, stands):
            ours = frame.Timer(lambda: run(*args), [()], "graph")  # noqa: B023  captured at once
        a, b = frame.in_turns(ours, theirs, 0.05)
        ratios[name] = frame.quartiles(t / o for t, o in zip(b, a))[1]
    return ratios


def tune(op: str, arch: str, end: float, rows: list, save) -> dict | None:
    """The winner of an operator, or None where what stands is as good; adds a row for each configuration tried."""
    module = importlib.import_module(f"ganfast.kernels.{op}")
    stands, *others = configurations(module, launches.declared()[op].TUNE)
    found = cases(op) if torch.cuda.is_available() else []
    best, winner = WORTH, None
    for values in (stands, *others):
        if time.monotonic() > end:
            print(f"{op}: time is up after {len(rows)} configurations")
            break
        with Constants(module, values):
            row = {"op": op, "arch": arch, "constants": values, "code": report(op, arch)}
        if found and values != stands and not (row["code"] and row["code"]["spills"]):
            try:
                row["ratios"] = score(module, stands, values, found)
                row["score"] = math.exp(sum(map(math.log, row["ratios"].values())) / len(found))
            except AssertionError as error:
                row["error"] = str(error)
        if row.get("score", 1.0) < best:
            best, winner = row["score"], values
        rows.append(row)
        save()
        print(f"{op} {values}: {row.get('score', row.get('error', 'stands' if values == stands else 'not timed'))}, "
              f"{row['code']}", flush=True)  # fmt: skip
    return winner


def write(arch: str, winners: dict) -> None:
    """Put the winners into kernels/tuned.py; what it has for other chips and operators stays."""
    module = importlib.import_module("ganfast.kernels.tuned")
    updated = {**module.TABLE, arch: {**module.TABLE.get(arch, {}), **winners}}
    lines = TUNED.read_text().split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(HEAD))
    stop = next(i for i in range(start, len(lines)) if lines[i] == "")
    TUNED.write_text("\n".join([*lines[:start], HEAD + json.dumps(updated, indent=4), *lines[stop:]]))


def main() -> int:
    tunable = [op for op, declaration in launches.declared().items() if hasattr(declaration, "TUNE")]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ops", nargs="*", default=tunable, metavar="op", help=f"of {', '.join(tunable)}")
    parser.add_argument("--minutes", type=float, default=5.0, help="at most (default 5)")
    parser.add_argument("--arch", help="compute capability without the point; this GPU's if not given")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "build" / "tune.json", help="where each row goes at once"
    )
    parser.add_argument("--write", action="store_true", help="put the winners into kernels/tuned.py")
    options = parser.parse_args()
    if unknown := set(options.ops) - set(tunable):
        parser.error(
            f"nothing to tune in {', '.join(sorted(unknown))}: TUNE is in the launches of {', '.join(tunable)}"
        )
    here = "".join(map(str, torch.cuda.get_device_capability())) if torch.cuda.is_available() else None
    arch = options.arch or here
    if arch is None:
        parser.error("no GPU here: --arch 90 reads the machine code alone")
    if options.write and here != arch:
        parser.error(f"--write needs a GPU of compute capability {arch}: nothing is written that was not timed")
    rows, winners = [], {}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    environment = calibrate.environment()

    def save():
        options.results.write_text(json.dumps({"environment": environment, "rows": rows, "winners": winners}, indent=1))

    end = time.monotonic() + 60 * options.minutes
    for op in options.ops:
        winner = tune(op, arch, end, rows, save)
        if winner:
            winners[op] = winner
            save()
    print("winners:", winners or "none: what stands is as good, or nothing was timed")
    if options.write and winners:
        write(arch, winners)
    return 0


if __name__ == "__main__":
    sys.exit(main())
