"""Two revisions on this machine: builds REF in a worktree of its own and runs the same benchmarks of both in turns.

    python bench/compare.py main                         # the working tree against main: the quick set
    python bench/compare.py v0.1 -k sigmoid_bce --rounds 3

Every round runs REF's sources and then the working tree's, under the working tree's benchmarks. A speed-up is the
median of the rounds' ratios of "ganfast" rows, with the least and the largest. Where a check failed on either side, or
a row is missing on one, no speed-up is printed and the exit code is 1.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import table

ROOT = Path(__file__).resolve().parent.parent


def build(ref: str, folder: Path) -> Path:
    """ganfast of `ref`, built in a worktree of its own and installed into a folder of its own, which is returned."""
    tree, site = folder / "tree", folder / "site"
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", "--quiet", tree, ref], check=True)
    try:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps"]
        run = subprocess.run([*pip, "--target", site, tree], capture_output=True, text=True)
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
    if run.returncode:
        raise SystemExit(f"{ref} does not build: {run.stderr[-2000:]}")
    return site


def measure(folder: Path, site: Path | None, output: Path, selection: list[str]) -> dict:
    """The rows of the benchmarks in `folder`, with the ganfast of `site` or the one that is installed."""
    environment = {**os.environ, "GANFAST_REVISION": str(site or "working tree")}
    environment.pop("PYTHONPATH", None)
    if site:
        environment["PYTHONPATH"] = str(site)
    where = [sys.executable, "-c", "import ganfast; print(ganfast.__file__)"]
    found = subprocess.run(
        where, cwd=folder, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_relative_to(site or ROOT):
        raise SystemExit(f"python finds ganfast in {found}, needs {site or ROOT}: pip install -e . there first")
    command = [sys.executable, "-m", "pytest", "bench", "-q", "--benchmark-only", "--results", output, *selection]
    command += ["--continue-on-collection-errors"]  # an older revision may lack an operator
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if run.returncode not in (0, 1) or not output.exists():
        raise SystemExit(f"the benchmarks do not run: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    return json.loads(output.read_text())["rows"]


def verdicts(befores: list[dict], afters: list[dict]) -> tuple[list[str], bool]:
    """(lines, whether all is right) of the rounds' rows: a speed-up, or why there is none."""
    lines, right = [], True
    for name in {name: None for rows in befores + afters for name in rows}:
        pairs = [(before.get(name), after.get(name)) for before, after in zip(befores, afters)]
        rows = [row for pair in pairs for row in pair]
        errors = [row["error"] for row in rows if row and "error" in row]
        if errors or None in rows:
            right = False
            lines.append(f"{name}: no speed-up: {errors[0] if errors else 'one side has no such row'}")
            continue
        if rows[0]["row"] != "ganfast":
            continue  # a baseline: it is there to be checked
        ratios = [a["seconds"] / b["seconds"] for a, b in pairs]
        medians = [statistics.median(row["seconds"] for row in side) for side in zip(*pairs)]
        lines.append(
            f"{name}: {statistics.median(ratios):.2f}× ({min(ratios):.2f} – {max(ratios):.2f}), "
            f"{table.seconds(medians[0])} before, {table.seconds(medians[1])} now"
        )
    return lines, right and bool(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ref", help="a commit, branch or tag")
    parser.add_argument("-k", help="pytest's selection of benchmarks")
    parser.add_argument("--full", action="store_true", help="the full set instead of the quick one")
    parser.add_argument("--rounds", type=int, default=2, help="how often both run (default 2)")
    options = parser.parse_args()
    selection = [*(["-k", options.k] if options.k else []), *([] if options.full else ["-m", "not full"])]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(ROOT / "bench", folder / "bench", ignore=shutil.ignore_patterns("results", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        site = build(options.ref, folder)
        befores, afters = [], []
        for i in range(options.rounds):
            befores.append(measure(folder, site, folder / f"before-{i}.json", selection))
            afters.append(measure(folder, None, folder / f"after-{i}.json", selection))
            print(f"round {i + 1} of {options.rounds} is done", flush=True)
    lines, right = verdicts(befores, afters)
    print("\n".join(lines) or "no row was measured")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
