"""The parts of a run on a GPU: which rows each measures, for how long it is planned, and which call it falls into.

    python bench/parts.py gpu [--budget 9]      what bench/gpu.sh would measure; needs no GPU
    pytest bench --benchmark-only --part NAME --device gpu        measures the rows of one part

Every row has one part at most: PARTS in their order, what is worth most first. `long` is what no half hour holds.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLOW = ("compiled", "compiled broadcast", "traced", "ganfast compiled", "max-autotune")  # rows that compile for long
USUAL = {"dcgan": (64, 128), "conv": (64, 64), "resnet": (128, 64)}  # width and batch, as papers have them
SMALL = ((32, 16), (16, 16))  # what a CPU can measure

# seconds that a part is planned to take before its rows, and a row of each kind; nobody has measured them on a GPU. A
# test takes its process 3 s, of which twelve run at once
SECONDS = {
    "install": 60, "environment": 5, "tests": 60, "calibration": 15, "steps-bf16": 60, "steps-fp32": 60, "ops": 30,
    "host": 20, "profile": 60, "eager": 20, "training": 20, "tune": 90, "compiled": 30, "sanitize": 20, "sizes": 30,
    "long": 30,
}  # fmt: skip
OF_A_ROW = {"operator": 1.2, "step": 5.0, "slow": 25.0, "max-autotune": 90.0, "tests": 0.25, "sanitize": 15.0}
PARTS = tuple(SECONDS)
TESTS = {"tests": ("tests", "gpu and not slow"), "sanitize": ("tests/kernels/test_memory.py", "gpu")}  # where, marks
LEFT_OUT = ("sizes", "long")  # unless it is named
UNUSED = ("cacheprovider", "hypothesispytest", "logging", "randomly")  # plugins that only cost a list time


def device_of(place: str) -> str:
    return "cpu" if place in ("cpu", "stub") else "cuda"


def size_of(params: dict) -> tuple:
    """(width, batch) of a step."""
    return params["case"][-2:] if "case" in params else params["size"]


def usual(params: dict, device: str) -> bool:
    """Whether the sizes of a step are those that papers have, or those for a CPU."""
    kind = params["case"][1] if "case" in params else "dcgan"
    return size_of(params) in SMALL if device == "cpu" else size_of(params) == USUAL[kind]


def part_of(item, device: str) -> str | None:
    """The part that measures a row on "gpu" or "cpu"; None for what is of the other."""
    params = getattr(item, "callspec", None) and item.callspec.params
    if not params or "place" not in params or (device_of(params["place"]) == "cpu") != (device == "cpu"):
        return None
    file, row, captured = item.path.stem.removeprefix("test_"), params["row"], params["place"] != "cuda"
    if file in ("training", "translation", "host_time"):
        return "host" if file == "host_time" else "training"
    if file != "steps":
        return "ops" if captured and row not in SLOW else "long"
    half, of_papers = params["precision"] == "bf16", usual(params, device)
    if row in SLOW:
        measured = captured and half and of_papers and row != "max-autotune" and compiled_for(params)
        return "compiled" if measured else "long"
    if of_papers:
        return f"steps-{params['precision']}" if captured else "long" if half else "eager"
    return "sizes" if captured and row != "eager" and size_of(params) not in SMALL else "long"


def compiled_for(params: dict) -> bool:
    """One step of each kind is enough of what compiles for long."""
    return "case" not in params or params["case"][:2] == ("wgan-gp", "conv")


def seconds_of(item) -> float:
    """How long a row is planned to take."""
    row, steps = item.callspec.params["row"], item.path.stem in ("test_steps", "test_training", "test_translation")
    return OF_A_ROW[row if row == "max-autotune" else "slow" if row in SLOW else "step" if steps else "operator"]


# --- the plan ---------------------------------------------------------------------------------------------------------


def rows_on(device: str, select: str = "") -> list[tuple]:
    """(part, seconds, name) of each row, as the benchmarks themselves say."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        _pytest("bench", "--benchmark-disable", "--device", device, "--rows", file, *(["-k", select] if select else []))
        rows = [line.split(" ", 2) for line in file.read_text().splitlines()]
    return [(part, float(seconds), name) for part, seconds, name in rows]


def counted(rows: list[tuple]) -> dict:
    """part → (its rows, seconds); tests by their marks."""
    found = {part: (0, SECONDS[part]) for part in PARTS}
    for part, seconds, _ in rows:
        found[part] = found[part][0] + 1, found[part][1] + seconds
    for part in TESTS:
        count = len(tests_of(part))
        found[part] = count, SECONDS[part] + count * OF_A_ROW[part]
    return found


@functools.cache
def tests_of(part: str) -> list[str]:
    """The tests of a part, as pytest names them."""
    where, marks = TESTS[part]
    return [line for line in _pytest(where, "-m", marks, "--collect-only").splitlines() if "::" in line]


def _pytest(*arguments) -> str:
    options = ["-q", "--assert=plain", *(f"-pno:{name}" for name in UNUSED)]  # asserts need not be rewritten
    command = [sys.executable, "-m", "pytest", *options, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}  # of a pytest that runs this
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if run.returncode not in (0, 5):  # 5: nothing selected
        sys.exit(f"{' '.join(command)}\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
    return run.stdout


def calls(planned: dict, parts: list, budget: float) -> list[list[tuple]]:
    """[(part, seconds)] of each call of `budget` seconds; a part longer than what is left goes on in the next."""
    found, left = [[]], budget
    for part in parts:
        rest = planned[part][1]
        while rest > 0:
            if left <= 0:
                found.append([])
                left = budget
            taken = min(rest, left)
            found[-1].append((part, taken))
            rest, left = rest - taken, left - taken
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("device", choices=("gpu", "cpu"))
    parser.add_argument("--budget", type=float, default=9.0, help="minutes of a call (default 9)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[p for p in PARTS if p not in LEFT_OUT])
    options = parser.parse_args()
    planned = counted(rows_on(options.device, os.environ.get("GANFAST_GPU_SELECT", "")))
    for number, call in enumerate(calls(planned, options.only, 60 * options.budget), 1):
        print(f"call {number}: {sum(taken for _, taken in call):.0f} s")
        for part, taken in call:
            rows, whole = planned[part]
            print(f"  {part}: {taken:.0f} of {whole:.0f} s" + (f", {rows} rows in all" if rows else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
