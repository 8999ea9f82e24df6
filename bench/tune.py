"""The best constants of the Triton kernels on this GPU: tries what tools/launches/<op>.py lists in TUNE or problems.

    python bench/tune.py --minutes 5 --write          # the winners go to kernels/tuned.py, which the kernels read
    python bench/tune.py interpolate --arch 90        # without a GPU: what would be tried, with the machine code

A search is over the constants of all kernels of an operator, or over the configurations of one problem of conv_bn_act
(kind of kernel and sizes). Each candidate is compiled and its machine code read (registers, shared memory, spills: one
that spills is not timed), checked against the plain reference, and timed in turns with what stands, on all of the
search's calls, in fp32 and bf16; its score is the geometric mean of the ratios. Searches take turns, the best guesses
first, until the time is up. The table is written to --results as it goes.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import calibrate
import frame
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

import launches  # noqa: E402
import machine_code  # noqa: E402

from ganfast.ops import use_backend  # noqa: E402

TUNED = ROOT / "kernels" / "tuned.py"
WORTH = 0.97  # a winner must be this much better than what stands
DTYPES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # and how near the reference results must be
HEAD = "TABLE: dict = "


# --- what is tried ----------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """One call of an operator's Triton backend; args on a device ("meta": nothing is computed)."""

    name: str
    dtype: torch.dtype
    of: object  # device → args

    @property
    def op(self):
        from ganfast.ops._registry import OPS

        return OPS[self.name]

    @property
    def run(self):
        run = next(b.run for b in self.op.backends if b.name == "triton")

        def forced(*args):
            with use_backend("triton"):  # not the vendor's convolutions
                return run(*args)

        return forced


@dataclass
class Search:
    """Constants to try together, of which the first stand; the calls they are judged by."""

    op: str
    what: str
    constants: list  # of {name: value}
    calls: list  # of Call


def tensors(device, dtype):
    def tensor(*shape, dtype=dtype):
        return torch.rand(shape, device=device).add(0.1).to(dtype) if device != "meta" else _empty(shape, dtype)

    return tensor


def _empty(shape, dtype):
    return torch.empty(shape, dtype=dtype, device="meta")


def _calls(rows) -> list[Call]:
    """A Call for each row (name, args) of rows(t), in each dtype."""
    found = []
    for dtype in DTYPES:
        for i, (name, _) in enumerate(rows(tensors("meta", dtype))):

            def of(device, i=i, dtype=dtype):
                return next(itertools.islice(rows(tensors(device, dtype)), i, None))[1]

            found.append(Call(name, dtype, of))
    return found


def searches(op: str) -> list[Search]:
    """Those of an operator, each with what stands first."""
    declaration, module = launches.declared()[op], importlib.import_module(f"ganfast.kernels.{op}")
    found = []
    if hasattr(declaration, "TUNE"):
        tune = declaration.TUNE
        stands = {name: getattr(module, name) for name in tune}
        others = [dict(zip(tune, values)) for values in itertools.product(*tune.values())]
        calls = _calls(lambda t: (row for sizes in declaration.SIZES for row in declaration.calls(t, *sizes)))
        found.append(Search(op, "constants", [stands, *(c for c in others if c != stands)], calls))
    if hasattr(declaration, "problems"):
        asked: dict = {}  # problem → its calls
        for call in _calls(declaration.problems):
            asked.setdefault(problem_of(module, call), []).append(call)
        for problem, calls in asked.items():
            tried = [{"BEST": {problem: list(c)}} for c in declaration.candidates(problem)]
            found.append(Search(op, problem, [{"BEST": module.BEST}, *tried], calls))
    return found


def problem_of(module, call: Call) -> str:
    """What a call looks up in BEST."""

    class Asked(dict):
        def get(self, key, default=None):
            self[key] = None
            return default

    asked = Asked()
    with constants(module, {"BEST": asked}):
        launches.record(lambda: call.run(*call.of("meta")))
    (problem,) = asked
    return problem


@contextlib.contextmanager
def constants(module, values: dict):
    """Within, the kernels of the module are launched with these."""
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)


# --- what is found out ------------------------------------------------------------------------------------------------


def report(search: Search, arch: str) -> dict | None:
    """The largest of registers, shared memory and spills among what the calls launch; None without the tools."""
    found: dict = {}
    for call in search.calls:
        found |= dict.fromkeys(launches.record(lambda: call.run(*call.of("meta"))))  # noqa: B023  called at once
    try:
        compiled = [machine_code.triton_cubin(launch, arch) for launch in found]
        functions = machine_code.read([cubin for cubin, _ in compiled], arch)
    except machine_code.ToolMissing:
        return None
    return {
        "registers": max(f.registers for (f,) in functions),
        "shared": max(f.shared + dynamic for (f,), (_, dynamic) in zip(functions, compiled)),
        "spills": sum(f.spills + f.stack + f.local for (f,) in functions),
        "kernels": len(found),
    }


def _tensors(result) -> list:
    return [
        x for x in (result if isinstance(result, tuple) else (result,)) if isinstance(x, torch.Tensor) and x.numel()
    ]


def score(module, search: Search, candidate: dict) -> dict:
    """Ratios of the candidate's times to those of what stands; AssertionError where it computes something else."""
    ratios = {}
    for number, call in enumerate(search.calls):
        args, bound = call.of("cuda"), DTYPES[call.dtype]
        wide = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]

        def step(run=call.run, args=args):
            return run(*args)

        with constants(module, candidate):
            got = _tensors(step())
            theirs = frame.Timer(step, [()], "graph")
        for a, b in zip(got, _tensors(call.op.reference(*wide)), strict=True):
            error = frame.distance(a, b)
            assert error <= bound, f"{call.name} with {candidate}: relative error {error:.2g}, at most {bound}"
        with constants(module, search.constants[0]):
            ours = frame.Timer(step, [()], "graph")
        a, b, _ = frame.in_turns(ours, theirs, 0.05)
        ratios[f"{number} {call.name} {call.dtype}"] = frame.quartiles(t / o for t, o in zip(b, a))[1]
    return ratios


def tune(found: list[Search], arch: str, end: float, rows: list, save) -> dict:
    """{operator: constants} of what is better than what stands; adds a row for each candidate tried."""
    best: dict = {}  # (operator, what) → (score, constants)
    for i in itertools.count():
        left = [search for search in found if i < len(search.constants)]
        for search in left:
            if time.monotonic() > end:
                print(f"time is up after {len(rows)} candidates")
                return _winners(best)
            row = try_one(search, search.constants[i], arch, stands=i == 0)
            if row.get("score", 1.0) < best.get((search.op, search.what), (WORTH,))[0]:
                best[search.op, search.what] = row["score"], row["constants"]
            rows.append(row)
            save(_winners(best))
            said = row.get("score", row.get("error", "stands" if i == 0 else "not timed"))
            print(f"{search.op}, {search.what}, {row['constants']}: {said}, {row['code']}", flush=True)
        if not left:
            return _winners(best)


def try_one(search: Search, candidate: dict, arch: str, stands: bool) -> dict:
    """The row of a candidate: its machine code and, on a GPU, its ratios and score or its error."""
    module = importlib.import_module(f"ganfast.kernels.{search.op}")
    with constants(module, candidate):
        code = report(search, arch)
    row = {"op": search.op, "what": search.what, "arch": arch, "constants": candidate, "code": code}
    if torch.cuda.is_available() and not stands and not (code and code["spills"]):
        try:
            row["ratios"] = score(module, search, candidate)
            row["score"] = math.exp(sum(map(math.log, row["ratios"].values())) / len(row["ratios"]))
        except Exception as error:  # one that does not fit, or computes something else, is noted and loses
            row["error"] = f"{type(error).__name__}: {error}"[:300]
    return row


def _winners(best: dict) -> dict:
    """{operator: constants}; the problems of one operator are one BEST."""
    found: dict = {}
    for (op, _), (_, values) in best.items():
        mine = found.setdefault(op, {})
        for name, value in values.items():
            mine[name] = {**mine.get(name, {}), **value} if isinstance(value, dict) else value
    return found


def write(arch: str, winners: dict) -> None:
    """Put the winners into kernels/tuned.py; what it has for other chips, operators and problems stays."""
    table = importlib.import_module("ganfast.kernels.tuned").TABLE
    here = dict(table.get(arch, {}))
    for op, values in winners.items():
        before = here.get(op, {})
        here[op] = {k: {**before.get(k, {}), **v} if isinstance(v, dict) else v for k, v in values.items()}
    lines = TUNED.read_text().split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(HEAD))
    stop = next(i for i in range(start, len(lines)) if lines[i] == "")
    TUNED.write_text("\n".join([*lines[:start], HEAD + json.dumps({**table, arch: here}, indent=4), *lines[stop:]]))


def main() -> int:
    tunable = [op for op, d in launches.declared().items() if hasattr(d, "TUNE") or hasattr(d, "problems")]
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
        parser.error(f"nothing to tune in {', '.join(sorted(unknown))}: there is in {', '.join(tunable)}")
    here = "".join(map(str, torch.cuda.get_device_capability())) if torch.cuda.is_available() else None
    arch = options.arch or here
    if arch is None:
        parser.error("no GPU here: --arch 90 reads the machine code alone")
    if options.write and here != arch:
        parser.error(f"--write needs a GPU of compute capability {arch}: nothing is written that was not timed")
    rows: list = []
    options.results.parent.mkdir(parents=True, exist_ok=True)
    environment = calibrate.environment()

    def save(winners):
        options.results.write_text(json.dumps({"environment": environment, "rows": rows, "winners": winners}, indent=1))

    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GANFAST_CACHE"] = folder  # what stands is chosen here and now, and nobody's choices are changed
        winners = tune([s for op in options.ops for s in searches(op)], arch, end, rows, save)
    print("winners:", winners or "none: what stands is as good, or nothing was timed")
    if options.write and winners:
        write(arch, winners)
    return 0


if __name__ == "__main__":
    sys.exit(main())
