"""The cases of soak.py. Each is a function of a Lab, whose children train and are hurt."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fault_lab import (
    FAIL_FROM,
    FAIL_ONCE,
    KILL_AFTER,
    KILL_BEFORE,
    REFUSED,
    SENTENCE,
    TRAIN,
    Ended,
    Lab,
    complete,
    newest,
    only,
)  # fmt: skip

# -- kills -------------------------------------------------------------------------------------------------------------


def kills_in_time(lab: Lab) -> None:
    """kill -9 at random moments, run after run."""
    began = time.monotonic()
    reference = lab.reference()
    whole = time.monotonic() - began
    while lab.more():
        outdir, before = lab.fresh(), 0
        while lab.more():
            run = only(outdir)
            argv = ["train", "dcgan", "--resume", str(run)] if before else [*TRAIN, "--outdir", str(outdir)]
            child = lab.start(argv)
            time.sleep(lab.random.uniform(0, 1.1 * whole))
            os.kill(child[0], signal.SIGKILL)
            ended = complete(lab.wait(child))
            run = only(outdir)
            if ended.code == 0:
                lab.compare(run, reference, older=REFUSED not in ended.said)
                break
            lab.told(ended, -signal.SIGKILL)
            lab.hurt(run, before)
            before = newest(run) if run else 0
        else:
            lab.go_on(outdir, reference)


def kills_at_operations(lab: Lab) -> None:
    """kill -9 before, or in the midst of, the n-th thing that is done to the disk; half of them while resuming, too."""
    reference = lab.reference()
    moments = [(n, mode) for n in range(1, lab.operations + 1) for mode in (KILL_BEFORE, KILL_AFTER)]
    lab.random.shuffle(moments)
    lab.tries = min(lab.tries, len(moments)) if lab.tries < 50 else len(moments)
    for n, mode in moments:
        if not lab.more():
            break
        outdir = lab.fresh()
        lab.train([*TRAIN, "--outdir", str(outdir)], at=n, mode=mode)
        run = only(outdir)
        lab.hurt(run, 0)
        before = newest(run) if run else 0
        if before and lab.random.random() < 0.5:
            ended = lab.go_on(outdir, reference, at=lab.random.randint(1, 60), mode=mode)
            if ended.code == 0:  # there was not so much to do
                lab.compare(run, reference, older=REFUSED not in ended.said)
                continue
            lab.hurt(run, before)
        lab.go_on(outdir, reference)
        shutil.rmtree(outdir)


# -- the disk ----------------------------------------------------------------------------------------------------------


def failing_operations(lab: Lab) -> None:
    """The n-th thing that is done to the disk fails, and all that follow or that one only."""
    reference = lab.reference()
    moments = [(n, how, number) for n in range(1, lab.operations + 1) for how in (FAIL_FROM, FAIL_ONCE)
               for number in (errno.ENOSPC, errno.EROFS, errno.EIO)]  # fmt: skip
    lab.random.shuffle(moments)
    for n, how, number in moments:
        if not lab.more():
            break
        outdir = lab.fresh()
        ended = lab.train([*TRAIN, "--outdir", str(outdir)], at=n, mode=how, error=number)
        if ended.code == 0:  # one of TensorBoard's last events, or the name in .lock: nobody's loss
            lab.tally.tries += 1
            lab.compare(only(outdir), reference)
            continue
        lab.told(ended)
        run = only(outdir)
        lab.hurt(run, 0)
        before = newest(run) if run else 0
        if before:  # and while resuming
            ended = lab.go_on(outdir, reference, at=lab.random.randint(1, 60), mode=how, error=number)
            if ended.code == 0:
                lab.compare(run, reference, older=REFUSED not in ended.said)
                continue
            lab.told(ended)
            lab.hurt(run, before)
        lab.go_on(outdir, reference)
        shutil.rmtree(outdir)


def full_disk(lab: Lab) -> None:
    """A file system of some size, which is too small; then room is made."""
    reference = lab.reference()
    need = sum(path.stat().st_size for path in reference.rglob("*") if path.is_file())
    disk = lab.folder / "disk"
    disk.mkdir()
    while lab.more():
        size = lab.random.randint(8, int(need * 1.2) // 1024)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "soak", str(disk)], check=True)
        ended = lab.train([*TRAIN, "--outdir", str(disk / "runs")])
        if ended.code == 0:
            lab.compare(only(disk / "runs"), reference)
        else:
            lab.told(ended)
            lab.hurt(only(disk / "runs"), 0)
            subprocess.run(["mount", "-o", f"remount,size={need * 4 // 1024}k", str(disk)], check=True)
            lab.go_on(disk / "runs", reference)
        subprocess.run(["umount", str(disk)], check=True)


def read_only(lab: Lab) -> None:
    """A run directory in which nothing can be made or renamed any more."""
    reference = lab.reference(SLOW)
    while lab.more():
        outdir = lab.fresh()
        child = lab.start([*SLOW, "--outdir", str(outdir)])
        run = until_rows(outdir, lab.random.randint(1, 4))
        subprocess.run(["chattr", "+i", str(run)], check=True)
        lab.told(lab.wait(child))
        lab.hurt(run, 0)
        lab.told(lab.train(["train", "dcgan", "--resume", str(run)]) if newest(run) else Ended(2, SENTENCE, 0))
        subprocess.run(["chattr", "-i", str(run)], check=True)
        lab.go_on(outdir, reference, SLOW)


def deleted(lab: Lab) -> None:
    """The run directory is deleted while it is written to: it comes again, with the networks as they are."""
    reference = lab.reference(SLOW)
    while lab.more():
        outdir = lab.fresh()
        child = lab.start([*SLOW, "--outdir", str(outdir)])
        run = until_rows(outdir, lab.random.randint(1, 4))
        os.rename(run, outdir / "gone")
        ended = lab.wait(child)
        lab.told(ended)
        lab.tally.tries += 1
        if not newest(run):
            lab.tally.lost += 1
            lab.tally.note(f"lost: nothing in {run}")
            continue
        lab.train(["train", "dcgan", "--resume", str(run)])
        shutil.copy(reference / "stats.jsonl", run)  # its rows went with the directory
        lab.compare(run, reference, older=False)


SLOW = [*TRAIN, "--width", "24", "--batch", "64"]  # some 30 ms a step: time to be hurt in


def until_rows(outdir: Path, count: int) -> Path:
    """The run in ``outdir`` once it has so many rows."""
    from ganfast.training import run_directory

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        run = only(outdir)
        if run and len(run_directory.read_stats(run)) >= count:
            return run
        time.sleep(0.002)
    raise TimeoutError(f"no {count} rows in {outdir}")


# -- signals -----------------------------------------------------------------------------------------------------------


def signals(lab: Lab) -> None:
    """SIGINT, SIGTERM and SIGHUP save; a second one stops at once, and spares what was saved."""
    reference = lab.reference(SLOW)
    while lab.more():
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[lab.tally.tries % 3]
        twice = lab.tally.tries % 2 == 1
        outdir = lab.fresh()
        child = lab.start([*SLOW, "--outdir", str(outdir)])
        run = until_rows(outdir, lab.random.randint(1, 4))
        before = newest(run)
        os.kill(child[0], number)
        if twice:
            time.sleep(lab.random.uniform(0, 0.03))
            os.kill(child[0], number)
        ended = lab.wait(child)
        lab.told(ended, 128 + number)
        lab.hurt(run, before if twice else 2)
        lab.go_on(outdir, reference, SLOW)


# -- damage ------------------------------------------------------------------------------------------------------------


def damage(lab: Lab) -> None:
    """The newest checkpoint is damaged: the one before is taken, and that is said."""
    reference = lab.reference()
    ways = {
        "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
        "empty": lambda file: file.write_bytes(b""),
        "missing": lambda file: file.unlink(),
        "unreadable": lambda file: file.chmod(0),
        "a folder": lambda file: (file.unlink(), file.mkdir()),
    }
    while lab.more():
        outdir = lab.fresh()
        shutil.copytree(reference, outdir / reference.name)
        run = only(outdir)
        hurt = run / "checkpoint-000011"
        files = sorted(path for path in hurt.iterdir() if path.is_file())
        way = lab.random.choice([*ways, "no files", "no folder but a file"])
        if way == "no files":
            shutil.rmtree(hurt), hurt.mkdir()
        elif way == "no folder but a file":
            shutil.rmtree(hurt), hurt.write_bytes(b"")
        else:
            ways[way](lab.random.choice(files))
        user = lambda: None  # noqa: E731
        if way == "unreadable" and os.getuid() == 0:
            subprocess.run(["chmod", "777", str(lab.folder), str(lab.folder / "runs"), str(outdir)], check=True)
            subprocess.run(["chown", "-R", "65534:65534", str(outdir)], check=True)
            user = lambda: os.setuid(65534)  # noqa: E731
            hurt.joinpath("checkpoint.json").chmod(0)
            subprocess.run(["chown", "-R", "0:0", str(hurt)], check=True)
        ended = lab.train(["train", "dcgan", "--resume", str(run)], before=user)
        lab.tally.tries += 1
        if ended.code or "Taking the one before" not in ended.said:
            lab.told(Ended(1, f"{way}: {ended.said}", 0))
        elif not (run / "damaged-checkpoint-000011").exists():
            lab.tally.lost += 1
        else:
            shutil.rmtree(run / "damaged-checkpoint-000011", ignore_errors=True)
            lab.compare(run, reference)


# -- numbers and memory ------------------------------------------------------------------------------------------------


def poison(position: int | None = None, step: int | None = None) -> Callable:
    """Weights become NaN once, where the data has come to ``position``, or always before ``step``."""

    def before():
        import torch

        from ganfast import Trainer

        advance = Trainer.advance

        def hurt(trainer):
            if trainer.feed.position == position or trainer.step == step:
                with torch.no_grad():
                    next(trainer.networks["D"].parameters()).fill_(torch.nan)
            advance(trainer)

        Trainer.advance = hurt

    return before


def not_a_number(lab: Lab) -> None:
    """A loss that is NaN stops the run; ``--on-nan rollback`` gets past it, also when killed in the midst of that."""
    argv = [*TRAIN, "--on-nan", "rollback"]
    reference = lab.reference(argv, before=poison(position=7 * 8))
    while lab.more():
        kind = lab.tally.tries % 3
        outdir = lab.fresh()
        if kind == 0:  # stop; then go on with a rollback
            lab.told(lab.train([*TRAIN, "--outdir", str(outdir)], before=poison(position=7 * 8)))
            lab.hurt(only(outdir), 4)
            ended = lab.train(["train", "dcgan", "--resume", str(only(outdir)), "--on-nan", "rollback"],
                              before=poison(position=7 * 8))  # fmt: skip
            lab.told(ended, 0)
            lab.compare(only(outdir), reference)
        elif kind == 1:  # it fails again and again
            ended = lab.train([*argv, "--outdir", str(outdir)], before=poison(step=6))
            lab.told(ended)
            if "3 rollbacks" not in ended.said:
                lab.tally.untold += 1
            lab.hurt(only(outdir), 4)
        else:  # killed
            faults = {"at": lab.random.randint(1, lab.operations), "mode": KILL_BEFORE} if lab.shim else {}
            lab.train([*argv, "--outdir", str(outdir)], before=poison(position=7 * 8), **faults)
            lab.hurt(only(outdir), 0)
            lab.go_on(outdir, reference, argv, before=poison(position=7 * 8))


def too_little_memory(lab: Lab) -> None:
    """A batch that does not fit: a sentence with one that does, which is true."""
    while lab.more():
        batch = lab.random.choice([1024, 1536])
        argv = [*TRAIN, "--size", "32", "--width", "64", "--steps", "2", "--outdir", str(lab.fresh())]
        ended = lab.train([*argv, "--batch", str(batch)], before=limit(400))
        lab.tally.tries += 1
        lab.told(ended)
        word = ended.said.partition("give --batch ")[2].split(" ")[0]
        if not word.isdecimal() or not 2 <= int(word) < batch:
            lab.tally.untold += 1
            lab.tally.note(ended.said[-600:])
        elif lab.train([*argv, "--batch", word], before=limit(450)).code:
            lab.tally.untold += 1
            lab.tally.note(f"batch {word} does not fit")


def limit(mebibytes: int) -> Callable:
    def before():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + mebibytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return before


# -- two at once, terminals, clocks ------------------------------------------------------------------------------------


def together(lab: Lab) -> None:
    """Eight runs at once in one outdir; two processes that resume one run."""
    reference, slow = lab.reference(), lab.reference([*SLOW, "--steps", "60"])
    while lab.more():
        outdir = lab.fresh()
        children = [lab.start([*TRAIN, "--outdir", str(outdir)]) for _ in range(8)]
        for child in children:
            lab.told(lab.wait(child), 0)
        runs = sorted(outdir.iterdir())
        lab.tally.tries += 1
        lab.tally.lost += len(runs) != 8
        for run in runs:
            lab.compare(run, reference)

        outdir = lab.fresh()
        child = lab.start([*SLOW, "--steps", "60", "--outdir", str(outdir)])
        run = until_rows(outdir, 3)
        os.kill(child[0], signal.SIGKILL), lab.wait(child)
        argv = ["train", "dcgan", "--resume", str(run)]
        ended = sorted(map(lab.wait, [lab.start(argv, before=impatient), lab.start(argv, before=impatient)]),
                       key=lambda each: each.code)  # fmt: skip
        lab.told(ended[0], 0)
        lab.told(ended[1])
        if "is being trained by process" not in ended[1].said:
            lab.tally.untold += 1
        lab.hurt(run, 4)
        lab.compare(run, slow)


def impatient() -> None:
    from ganfast.training import run_directory

    run_directory.PATIENCE = 0.2


def terminals(lab: Lab) -> None:
    """No terminal, a reader that leaves, no UTF-8: the run goes on to its end."""
    reference = lab.reference()
    ways = [
        "exec >&- 2>&- <&-; {}", "exec 2>&1; {} | head -n 1", "export PYTHONIOENCODING=ascii; {}", "exec 2>&-; {}",
        "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0; {}",
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    for way in ways[: lab.tries]:
        outdir = lab.fresh()
        code = Path(f"{outdir}.code")
        command = f"({sys.executable} -m ganfast.cli {' '.join(TRAIN)} --outdir {outdir}; echo $? > {code})"
        ended = subprocess.run(["sh", "-c", way.format(command)], env=environment, capture_output=True, text=True)
        lab.tally.tries += 1
        said = ended.stdout + ended.stderr
        if code.read_text() != "0\n" or "Traceback" in said or "Error" in said:
            lab.tally.untold += 1
            lab.tally.note(f"{way}: {code.read_text()} {said[-600:]}")
        lab.compare(only(outdir), reference)


def clocks(lab: Lab) -> None:
    """A clock that jumps back and forth by years."""

    def before():
        jumps = random.Random(lab.tally.tries)
        time.time = lambda: jumps.uniform(0, 4e9)

    reference = lab.reference()
    while lab.more():
        outdir = lab.fresh()
        lab.told(lab.train([*TRAIN, "--outdir", str(outdir)], before=before), 0)
        lab.hurt(only(outdir), 11)
        lab.compare(only(outdir), reference)


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
    """What stands against a case here; "" where nothing does."""
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
    """Prints a row a case as JSON; ``tries`` 0 is the short form."""
    import torch
    import torch.utils.tensorboard  # this and what follows here, so that each child need not

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
