"""pytest -m "gpu and not slow" over the test files that this machine's Python can import, several files at once.

    python bench/gpu_tests.py [--log FILE] [--at-once 12] [--again] [-m MARKS] [PATH …]

Each file has processes of its own, one for every twenty tests (most of the time goes into Triton's compiler), and
another one after a test that lost the device (an illegal access leaves CUDA unusable in the process that made it) or
that did not end in three minutes. What they print is printed at once, under
the file's name. FILE has a line for each test: started, passed, skipped, failed or lost; those that came to an end are
not run again, with --again those that failed are.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OWN = {"ganfast", *(p.stem for folder in ("tests", "bench", "tools") for p in (ROOT / folder).iterdir())}
TRITON = os.environ.get("TRITON_CACHE_DIR")  # which tests/conftest.py, imported later, changes
LOG = "GANFAST_TESTS_LOG"  # the environment's name for FILE, for the process of a file
SHARE = "GANFAST_TESTS_SHARE"  # and for which of a file's tests are the process's: "1/3"
MOST = 20  # tests of a process
LOST = 70  # its exit code where the rest needs another process
LONGEST = float(os.environ.get("GANFAST_TESTS_LONGEST", 180))  # seconds of a test
ENDS = ("passed", "skipped", "failed", "lost")


def outcomes(file: Path) -> dict:
    """test → its last outcome."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {test: outcome for outcome, test in (line.split(" ", 1) for line in lines)}


# --- the plugin of each process ---------------------------------------------------------------------------------------


def _note(outcome: str, test: str) -> None:
    with open(os.environ[LOG], "a") as file:
        file.write(f"{outcome} {test}\n")


def _end(test: str) -> None:
    _note("lost", test)
    print(f"\n{test} did not end in {LONGEST:.0f} s", file=sys.__stderr__, flush=True)
    os._exit(LOST)


@pytest.hookimpl(trylast=True)  # after the marks have been looked at
def pytest_collection_modifyitems(config, items):
    if TRITON:  # each kernel is compiled once for all files, and for the next call
        os.environ["TRITON_CACHE_DIR"] = TRITON
    done = outcomes(Path(os.environ[LOG]))
    share, of = map(int, os.environ[SHARE].split("/"))
    mine = [item for i, item in enumerate(sorted(items, key=lambda item: item.nodeid)) if i % of == share]
    left = [item for item in mine if done.get(item.nodeid) not in ENDS]
    config.hook.pytest_deselected(items=[item for item in items if item not in left])
    items[:] = left


_watches: dict = {}


def pytest_runtest_logstart(nodeid):
    _note(f"started:{os.environ[SHARE]}", nodeid)
    _watches[nodeid] = threading.Timer(LONGEST, _end, [nodeid])
    _watches[nodeid].start()


def pytest_runtest_logreport(report):
    if report.failed or report.skipped or (report.when == "call" and report.passed):
        _note(report.outcome, report.nodeid)


def pytest_runtest_logfinish(nodeid):
    _watches.pop(nodeid).cancel()
    torch = sys.modules.get("torch")  # what did not import it lost no device
    if torch and outcomes(Path(os.environ[LOG])).get(nodeid) == "failed" and torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            print(f"\n{nodeid} lost the device: {error}", file=sys.__stderr__, flush=True)
            os._exit(LOST)


# --- all files --------------------------------------------------------------------------------------------------------


def missing(output: str) -> str | None:
    """The package whose absence pytest says it cannot import a test file for; None where that is not it."""
    found = re.search(r"^E +ModuleNotFoundError: No module named '([\w.]+)'$", output, re.M)
    name = found and found[1].partition(".")[0]
    return None if name in OWN else name


def run(file: Path, log: Path, marks: str = "gpu and not slow", share: str = "0/1") -> int:
    """pytest's exit code, 5 where the file was left out; as many processes as it takes, one after the other."""
    command = [sys.executable, "-m", "pytest", "-v", "--no-header", "--tb=short", "-rN", "-m", marks]
    command += ["-p", "no:cacheprovider", "-p", "gpu_tests", file]
    path = os.pathsep.join([str(ROOT / "bench"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, LOG: str(log), SHARE: share, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the vendor's condition for the same bits every time
    failed = False
    while True:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said = []
        for line in child.stdout:
            said.append(line)
            print(f"{file.stem}: {line}", end="", flush=True)
        code = child.wait()
        if code == LOST or (code < 0 and _note_lost(log, file, share)):  # a signal: of the test that was started last
            failed = True
            continue
        lacks = missing("".join(said)) if code in (2, 4) else None
        if lacks:
            print(f"--- left out: {file} needs {lacks}", flush=True)
            return 5
        return 1 if failed and code in (0, 5) else code


def _note_lost(log: Path, file: Path, share: str) -> bool:
    """Whether the process came to a test that it did not end, which is not run again."""
    started = [test for test, outcome in outcomes(log).items() if outcome == f"started:{share}"]
    mine = [test for test in started if str(file).endswith(test.partition("::")[0])]
    with open(log, "a") as out:
        out.writelines(f"lost {test}\n" for test in mine)
    return bool(mine)


def files_in(paths: list[Path]) -> list[Path]:
    """The test files, relative to the repository, that have tests for a GPU, their own or by a fixture."""
    paths = [path.absolute() for path in paths]
    sources = [file for path in paths for file in (sorted(path.rglob("test_*.py")) if path.is_dir() else [path])]
    return [file.relative_to(ROOT) for file in sources if re.search(r"mark\.gpu\b|graph_device", file.read_text())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / "tests"])
    parser.add_argument("-m", dest="marks", default="gpu and not slow")
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "gpu-tests.txt")
    parser.add_argument("--at-once", type=int, default=min(12, os.cpu_count() or 1), help="processes (default 12)")
    parser.add_argument("--again", action="store_true", help="also what failed before")
    options = parser.parse_args()
    log = options.log.absolute()
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = ("passed", "skipped") if options.again else ENDS  # what was cut off is run again
    log.write_text("".join(f"{outcome} {test}\n" for test, outcome in outcomes(log).items() if outcome in kept))
    shares = shared(files_in(options.paths), options.marks)
    with ThreadPoolExecutor(options.at_once) as pool:
        codes = dict(zip(shares, pool.map(lambda one: run(one[0], log, options.marks, one[1]), shares)))
    return summary(codes, outcomes(log))


def shared(files: list[Path], marks: str) -> list[tuple]:
    """(file, share) for each process: a file's tests are dealt to as many as have MOST each at most."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", marks, "-p", "no:cacheprovider", "--collect-only", *files]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    counts = {file: len(re.findall(rf"^{re.escape(str(file))}::", listed, re.M)) for file in files}
    return [(file, f"{i}/{n}") for file, count in counts.items() for n in [max(-(-count // MOST), 1)] for i in range(n)]


def summary(codes: dict, ended: dict) -> int:
    """Says how many tests had which outcome, which failed and which files could not be run; whether any did."""
    bad = [f"{outcome}: {test}" for test, outcome in ended.items() if outcome in ("failed", "lost")]
    broken = [f"exit {code}: {file}, {share}" for (file, share), code in codes.items() if code not in (0, 1, 5)]
    counts = ", ".join(f"{sum(o == outcome for o in ended.values())} {outcome}" for outcome in ENDS)
    print(f"--- {len(codes)} processes: {counts}", *bad, *broken, sep="\n", flush=True)
    return int(bool(bad or broken))


if __name__ == "__main__":
    sys.exit(main())
