"""The table of soak.py's cases, and the process that runs them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from disk_faults import damage, deleted, failing_operations, full_disk, kills_at_operations, kills_in_time, read_only
from fault_lab import Lab
from run_faults import clocks, not_a_number, signals, terminals, together, too_little_memory


@dataclass
class Case:
    run: Callable[[Lab], None]
    short: int
    needs: str = ""
    most: int = 10**9


CASES = {
    "kills-in-time": Case(kills_in_time, 4),
    "kills-at-operations": Case(kills_at_operations, 5, "operations"),
    "failing-operations": Case(failing_operations, 4, "operations"),
    "full-disk": Case(full_disk, 3, "mounts"),
    "read-only": Case(read_only, 1, "immutable"),
    "deleted": Case(deleted, 1),
    "signals": Case(signals, 3),
    "damage": Case(damage, 3),
    "not-a-number": Case(not_a_number, 3),
    "too-little-memory": Case(too_little_memory, 1, most=5),
    "together": Case(together, 1, most=5),
    "terminals": Case(terminals, 1, most=5),
    "clocks": Case(clocks, 1, most=5),
}


def missing(needs: str, folder: Path) -> str:
    """Why a case cannot run on this machine, or ""."""
    if needs == "operations" and "LD_PRELOAD" not in os.environ:
        return "needs Linux and g++"
    if needs == "mounts" and not os.environ.get("SOAK_MOUNTS"):
        return "needs the right to mount (unshare)"
    if needs == "immutable":
        probe = folder / "probe"
        probe.touch()
        if not shutil.which("chattr") or subprocess.run(["chattr", "+i", str(probe)], capture_output=True).returncode:
            return "needs chattr +i, which root may do on some file systems"
        subprocess.run(["chattr", "-i", str(probe)], check=True)
    return ""


def main(folder: str, tries: str, seconds: str, *names: str) -> None:
    """Prints a row per case as JSON; ``tries`` 0 is the short form."""
    import torch
    import torch.utils.tensorboard  # imported and warmed up once here, before the forks

    import ganfast.cli  # noqa: F401
    from ganfast.data import open_dataset
    from ganfast.training.monitor import Monitor

    open_dataset("digits", size=16)
    torch.optim.Adam([torch.zeros(1)])
    (Path(folder) / "stats.jsonl").write_text(json.dumps({"step": 1, "loss_d": 1, "loss_g": 1, "a": 1, "b": 1}))
    with Monitor(Path(folder), 0, 1, 1, ("a", "b"), progress=False) as monitor:
        monitor.plot()
    lab = Lab(Path(folder))
    for name in names:
        case, began = CASES[name], time.monotonic()
        skipped = missing(case.needs, Path(folder))
        if not skipped:
            lab.begin(min(int(tries) or case.short, case.most), float(seconds))
            case.run(lab)
        row = {"skipped": skipped} if skipped else vars(lab.tally)
        print(json.dumps({"case": name, **row, "seconds": round(time.monotonic() - began, 1)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
