"""The soak test's harness: child processes that run ``ganfast``, reference runs without faults, comparisons."""

import ctypes
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

COUNT, KILL_BEFORE, KILL_AFTER, FAIL_ONCE, FAIL_FROM = range(5)  # as in faults.cpp
TRAIN = [
    "train", "dcgan", "--data", "digits", "--size", "16", "--width", "4", "--batch", "8", "--steps", "11", "--flip",
    "--log-every", "2", "--checkpoint-every", "4", "--sample-every", "6", "--keep", "2", "--device", "cpu",
]  # fmt: skip
SLOW = [*TRAIN, "--width", "24", "--batch", "64"]  # some 30 ms a step: faults hit it in the middle of training
SENTENCE = "ganfast: "
REFUSED = "is finished, it has its 11 steps"


@dataclass
class Tally:
    tries: int = 0
    lost: int = 0
    compared: int = 0
    exact: int = 0
    unreported: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if len(self.notes) < 10:
            self.notes.append(text)


@dataclass
class Ended:
    """How a child ended: its exit code (negative: the signal), its output, the number of disk operations."""

    code: int
    output: str
    operations: int


class Lab:
    """A folder, reference runs without faults, and children into which faults are injected."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.references: dict[str, tuple[Path, int]] = {}
        self.random = random.Random(int(os.environ.get("SOAK_SEED", "0")) or os.urandom(8))
        self.shim = ctypes.CDLL(None) if "LD_PRELOAD" in os.environ else None
        self.numbers = iter(range(10**9))

    def begin(self, tries: int, seconds: float) -> None:
        """Begins a case: at most `tries` tries, none of which begins after `seconds`."""
        self.tries, self.until, self.tally = tries, time.monotonic() + seconds, Tally()

    # -- children ---------------------------------------------------------------------------------------------------

    def start(self, argv: list[str], at: int = 0, mode: int = COUNT, error: int = 0, before: Callable = lambda: None):
        """Fork a child that runs ``ganfast argv``; ``before`` runs in it first."""
        from tqdm import tqdm

        from ganfast import cli

        report = self.folder / f"child-{next(self.numbers)}"
        child = os.fork()
        if child:
            return child, report
        code = 70
        try:
            out = os.open(report, os.O_CREAT | os.O_WRONLY, 0o666)
            os.dup2(out, 1), os.dup2(out, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # soak.py may have been started to ignore them
                signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
            tqdm.set_lock(threading.RLock())  # its own is shared by all children, and one may be killed with it in hand
            if self.shim:
                self.shim.faults_arm(os.fsencode(self.folder / "runs"), ctypes.c_long(at), mode, error)
            before()
            code = cli.main(argv)
        except SystemExit as error:
            code = error.code
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        finally:
            if self.shim:
                os.pwrite(os.open(f"{report}.count", os.O_CREAT | os.O_WRONLY), b"%d" % self.shim.faults_counted(), 0)
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)

    def begun(self) -> tuple[Path, tuple[int, Path], Path]:
        """(outdir, child, run) of a slow run that has written some rows."""
        outdir = self.fresh()
        child = self.start([*SLOW, "--outdir", str(outdir)])
        return outdir, child, until_rows(outdir, self.random.randint(1, 4))

    def wait(self, child: tuple[int, Path]) -> Ended:
        number, report = child
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        count = Path(f"{report}.count")
        ended = Ended(status, report.read_text(errors="replace"), int(count.read_text()) if count.exists() else 0)
        report.unlink(), count.unlink(missing_ok=True)
        if "Traceback" in ended.output or ended.code in (1, 70):
            self.tally.unreported += 1
            self.tally.note(f"code {ended.code}: {ended.output[-1500:]}")
        return ended

    def train(self, argv: list[str], **faults) -> Ended:
        return self.wait(self.start(argv, **faults))

    # -- runs -------------------------------------------------------------------------------------------------------

    def fresh(self) -> Path:
        """An outdir that does not exist yet."""
        return self.folder / "runs" / f"out-{next(self.numbers)}"

    def reference(self, argv: list[str] = TRAIN, **faults) -> Path:
        """A run without faults; sets ``operations``, the number of its disk operations."""
        if str(argv) not in self.references:
            outdir = self.fresh()
            ended = self.train([*argv, "--outdir", str(outdir)], **faults)
            assert ended.code == 0, ended
            self.references[str(argv)] = only(outdir), ended.operations
        run, self.operations = self.references[str(argv)]
        return run

    def more(self) -> bool:
        """Whether another try is due."""
        return self.tally.tries < self.tries and time.monotonic() < self.until

    def expect_exit(self, ended: Ended, code: int = 2) -> None:
        """The process must have ended with ``code`` and, if that is 2, one error message."""
        sentences = [line for line in ended.output.splitlines() if line.startswith(SENTENCE)]
        if ended.code != code or (code == 2 and len(sentences) != 1):
            self.tally.unreported += 1
            self.tally.note(f"code {ended.code}, not {code}: {ended.output[-600:]}")

    def check_saved(self, run: Path | None, before: int) -> None:
        """After a fault: everything that was saved still exists, loads, and has its rows."""
        self.tally.tries += 1
        reason = run and damage_of(run, before)
        if reason:
            self.tally.lost += 1
            self.tally.note(f"lost: {reason}")

    def resume(self, outdir: Path, reference: Path, argv: list[str] = TRAIN, **faults) -> Ended:
        """Resume the run (or start it again where nothing was saved) and compare it with the reference."""
        run = only(outdir)
        if run and newest(run):
            ended = complete(self.train(["train", "dcgan", "--resume", str(run)], **faults))
        else:
            shutil.rmtree(outdir, ignore_errors=True)
            ended = self.train([*argv, "--outdir", str(outdir)], **faults)
            run = only(outdir)
        if not faults.get("mode"):
            self.expect_exit(ended, 0)
            if ended.code == 0:
                self.compare(run, reference, older=REFUSED not in ended.output)
        return ended

    def compare(self, run: Path, reference: Path, older: bool = True) -> None:
        self.tally.compared += 1
        difference = difference_of(run, reference, older)
        self.tally.exact += not difference
        if difference:
            self.tally.note(f"differs: {difference}")


def complete(ended: Ended) -> Ended:
    """A run with a fault after its last checkpoint refuses to resume: it is complete, perhaps with an old one left."""
    return Ended(0, ended.output, ended.operations) if REFUSED in ended.output else ended


def only(outdir: Path) -> Path | None:
    """The run in ``outdir``."""
    runs = sorted(outdir.glob("0*")) if outdir.is_dir() else []
    return runs[-1] if runs else None


def until_rows(outdir: Path, count: int) -> Path:
    """The run in ``outdir``, once it has ``count`` rows."""
    from ganfast.training import run_directory

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        run = only(outdir)
        if run and len(run_directory.read_stats(run)) >= count:
            return run
        time.sleep(0.002)
    raise TimeoutError(f"no {count} rows in {outdir}")


def newest(run: Path) -> int:
    """The step of the newest checkpoint, intact or not; 0 where there is none."""
    from ganfast.training import checkpoint

    return max((int(path.name.split("-")[1]) for path in checkpoint.all_in(run)), default=0)


def damage_of(run: Path, before: int) -> str:
    """What is wrong with a run that had saved step ``before`` when the fault came, or ""."""
    import torch

    import ganfast
    from ganfast.errors import InputError
    from ganfast.training import checkpoint, run_directory

    checkpoints = checkpoint.all_in(run)
    if newest(run) < before:
        return f"{run} had step {before} and has {[path.name for path in checkpoints]}"
    try:
        for each in checkpoints:
            checkpoint.read(each, torch.device("cpu"))
        if (run / "generator.safetensors").exists():
            ganfast.load(run)
    except InputError as error:
        return str(error)
    steps = [row["step"] for row in run_directory.read_stats(run)]
    due = list(range(2, newest(run) + 1, 2))
    return "" if steps[: len(due)] == due else f"{run} has saved step {newest(run)} and the rows {steps}"


def difference_of(run: Path, reference: Path, older: bool) -> str:
    """The first thing in which two finished runs differ, leftovers and ``older`` checkpoints included; else ""."""
    import torch
    from safetensors.torch import load_file

    from ganfast.training import checkpoint, run_directory

    one, other = ([path.name for path in checkpoint.all_in(each)] for each in (run, reference))
    if one != other if older else one[-1] != other[-1]:
        return f"checkpoints {one} and {other}"
    weights = [sorted(path.name for path in (each / one[-1]).glob("*.safetensors")) for each in (run, reference)]
    if weights[0] != weights[1]:
        return f"files of {run / one[-1]}: {weights[0]} and {weights[1]}"
    for name in weights[1]:
        a, b = (load_file(each / one[-1] / name) for each in (run, reference))
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            return f"{name} of {run}"
    a, b = (torch.load(each / one[-1] / "state.pt", weights_only=True) for each in (run, reference))
    for state in (a, b):  # numpy's and Python's own generators: nothing draws from them, nothing seeds them
        state["random"] = [each["torch"] for each in state["random"]]
    if not same(a, b):
        return f"state.pt of {run}: {[key for key in b if not same(a.get(key), b[key])]}"
    a, b = (load_file(each / "generator.safetensors") for each in (run, reference))
    if not all(torch.equal(a[key], b[key]) for key in b):
        return f"generator.safetensors of {run}"
    rows = [[untimed(row) for row in run_directory.read_stats(each)] for each in (run, reference)]
    if rows[0] != rows[1]:
        return f"stats.jsonl of {run}: {[row['step'] for row in rows[0]]}, {[row['step'] for row in rows[1]]}"
    if (run / "fakes.png").read_bytes() != (reference / "fakes.png").read_bytes():
        return f"fakes.png of {run}"
    left = [path.name for path in run.iterdir() if "partial" in path.name]
    return f"{left} left in {run}" if left and older else ""


def same(a, b) -> bool:
    import torch

    if isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in b)
    if isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if torch.is_tensor(b) else a == b


def untimed(row: dict) -> dict:
    return {key: value for key, value in row.items() if "second" not in key and "_ms_" not in key and "wait" not in key}
