"""pytest -m gpu over the test files that this machine's Python can import; says which it leaves out, and why.

    python bench/gpu_tests.py [--passed FILE] [--at-once 4]

Each file has a process of its own: an illegal access leaves CUDA unusable in the process that made it, and most of the
time goes into Triton's compiler, so that several are run at once. FILE has the tests that have passed: they are not run
again.
"""

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWN = {"ganfast", *(p.stem for p in [*(ROOT / "tests").iterdir(), *(ROOT / "bench").iterdir()])}
PASSED = "GANFAST_TESTS_PASSED"  # the environment's name for FILE, for the process of a file


# --- the plugin of each process ---------------------------------------------------------------------------------------


def pytest_collection_modifyitems(config, items):
    file = Path(os.environ[PASSED])
    done = set(file.read_text().split("\n")) if file.exists() else set()
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        with open(os.environ[PASSED], "a") as file:
            file.write(report.nodeid + "\n")


# --- all files --------------------------------------------------------------------------------------------------------


def missing(output: str) -> str | None:
    """The package whose absence pytest says it cannot import a test file for; None where that is not it."""
    found = re.search(r"^E +ModuleNotFoundError: No module named '([\w.]+)'$", output, re.M)
    name = found and found[1].partition(".")[0]
    return None if name in OWN else name


def run(file: Path, passed: Path) -> int:
    """pytest's exit code, 5 where the file was left out; what it prints is printed when it is there as a whole."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "gpu_tests", file]
    path = os.pathsep.join([str(ROOT / "bench"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, PASSED: str(passed), "PYTHONPATH": path}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = found.stdout + found.stderr  # of what a conftest.py cannot import pytest speaks on stderr
    lacks = missing(said) if found.returncode in (2, 4) else None
    if lacks:
        print(f"--- left out: {file} needs {lacks}", flush=True)
        return 5
    print(f"--- {file}: exit {found.returncode}\n{said}", flush=True)
    return found.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--passed", type=Path, default=ROOT / "build" / "gpu-tests-passed.txt")
    parser.add_argument("--at-once", type=int, default=min(4, os.cpu_count() or 1), help="processes (default 4)")
    options = parser.parse_args()
    options.passed.parent.mkdir(parents=True, exist_ok=True)
    sources = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [file.relative_to(ROOT) for file in sources if re.search(r"mark\.gpu\b", file.read_text())]
    with ThreadPoolExecutor(options.at_once) as pool:
        codes = dict(zip(files, pool.map(lambda file: run(file, options.passed.absolute()), files)))
    bad = [str(file) for file, code in codes.items() if code not in (0, 5)]  # 5: nothing left to run
    print(f"{len(bad)} of {len(codes)} files failed", *bad, sep="\n")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
