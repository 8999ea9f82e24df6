"""Breaks training runs on purpose: kills, full disks, signals, damaged checkpoints, too little memory.

    python tools/soak/soak.py [--kills 50] [--minutes 20] [--short] [CASE ...]

One process runs the cases of ``fault_cases.py``; its children train, and the faults hit them. Prints a row per case:

    tries       faults that were injected
    lost        faults after which something saved was gone or could not be resumed
    bit-exact   resumed runs that are bit-identical to a run without faults, of all that were compared
    unreported  faults that ended in a traceback or without an error message

The exit code is 1 if anything was lost, not exact or unreported. A case that cannot run on this machine is skipped
with its reason.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fault_cases

HERE = Path(__file__).resolve().parent


def build(folder: Path) -> Path | None:
    """Build the library that injects faults (faults.cpp); None without a compiler."""
    library = folder / "faults.so"
    compiler = os.environ.get("CXX", "g++")
    if sys.platform != "linux" or not shutil.which(compiler):
        return None
    source = str(HERE / "faults.cpp")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    return library


def namespace() -> list[str]:
    """The command that gives the cases a mount namespace of their own; [] where that is not allowed."""
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        probe = "mount -t tmpfs -o size=1m none /mnt"
        if (
            shutil.which("unshare")
            and not subprocess.run([*command, "sh", "-c", probe], capture_output=True).returncode
        ):
            return command
    return []


def rows(names: list[str], tries: int, seconds: float, folder: Path):
    """Yields (case, its row) as the process that runs the cases prints them."""
    library, prefix = build(folder), namespace()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "SOAK_MOUNTS": "1" if prefix else ""}
    if library:
        env["LD_PRELOAD"] = str(library)
    command = [*prefix, sys.executable, str(HERE / "fault_cases.py"), str(folder), str(tries), str(seconds), *names]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout:
            row = json.loads(text)
            yield row.pop("case"), row


def line(name: str, row: dict) -> str:
    if "skipped" in row:
        return f"{name:<24} skipped: {row['skipped']}"
    exact = f"{row['exact']} of {row['compared']}"
    return f"{name:<24} {row['tries']:>5} {row['lost']:>5} {exact:>13} {row['unreported']:>10} {row['seconds']:>8}"


def bad(row: dict) -> bool:
    if "skipped" in row:
        return False
    return row["lost"] > 0 or row["unreported"] > 0 or row["exact"] < row["compared"] or not row["tries"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(fault_cases.CASES))
    parser.add_argument("--kills", type=int, default=50, help="tries of each case that is repeated")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="in total; no case begins another try after its share"
    )
    parser.add_argument("--short", action="store_true", help="a few tries of each case, about a minute in all")
    chosen = parser.parse_args()
    names = chosen.cases or list(fault_cases.CASES)
    for name in set(names) - set(fault_cases.CASES):
        parser.error(f"there is no case {name}; there are {', '.join(fault_cases.CASES)}")
    print(f"{'case':<24} {'tries':>5} {'lost':>5} {'bit-exact':>13} {'unreported':>10} {'seconds':>8}")
    found = {}
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        seconds = 60 * chosen.minutes / len(names)
        for name, row in rows(names, 0 if chosen.short else chosen.kills, seconds, Path(folder)):
            found[name] = row
            print(line(name, row), *row.get("notes", []), sep="\n    ", flush=True)
    unfinished = set(names) - set(found)
    if unfinished:
        print(f"did not finish: {', '.join(unfinished)}")
    return int(bool(unfinished) or any(map(bad, found.values())))


if __name__ == "__main__":
    sys.exit(main())
