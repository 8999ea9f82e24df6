"""Cases of soak.py: processes that die, and files that cannot be written or read. Each is a function of a Lab."""

import errno
import os
import shutil
import signal
import subprocess
import time

from fault_lab import (
    FAIL_FROM,
    FAIL_ONCE,
    KILL_AFTER,
    KILL_BEFORE,
    REFUSED,
    SENTENCE,
    SLOW,
    TRAIN,
    Ended,
    Lab,
    complete,
    newest,
    only,
)

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
                lab.compare(run, reference, older=REFUSED not in ended.output)
                break
            lab.expect_exit(ended, -signal.SIGKILL)
            lab.check_saved(run, before)
            before = newest(run) if run else 0
        else:
            lab.resume(outdir, reference)


def kills_at_operations(lab: Lab) -> None:
    """kill -9 before or during the n-th disk operation; in half of the tries also while resuming."""
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
        lab.check_saved(run, 0)
        before = newest(run) if run else 0
        if before and lab.random.random() < 0.5:
            ended = lab.resume(outdir, reference, at=lab.random.randint(1, 60), mode=mode)
            if ended.code == 0:  # there was not so much to do
                lab.compare(run, reference, older=REFUSED not in ended.output)
                continue
            lab.check_saved(run, before)
        lab.resume(outdir, reference)
        shutil.rmtree(outdir)


# -- the disk ----------------------------------------------------------------------------------------------------------


def failing_operations(lab: Lab) -> None:
    """The n-th disk operation fails: only that one, or it and all that follow."""
    reference = lab.reference()
    moments = [(n, how, number) for n in range(1, lab.operations + 1) for how in (FAIL_FROM, FAIL_ONCE)
               for number in (errno.ENOSPC, errno.EROFS, errno.EIO)]  # fmt: skip
    lab.random.shuffle(moments)
    for n, how, number in moments:
        if not lab.more():
            break
        outdir = lab.fresh()
        ended = lab.train([*TRAIN, "--outdir", str(outdir)], at=n, mode=how, error=number)
        if ended.code == 0:  # one of TensorBoard's last events, or the name in .lock: nothing is lost
            lab.tally.tries += 1
            lab.compare(only(outdir), reference)
            continue
        lab.expect_exit(ended)
        run = only(outdir)
        lab.check_saved(run, 0)
        before = newest(run) if run else 0
        if before:  # and while resuming
            ended = lab.resume(outdir, reference, at=lab.random.randint(1, 60), mode=how, error=number)
            if ended.code == 0:
                lab.compare(run, reference, older=REFUSED not in ended.output)
                continue
            lab.expect_exit(ended)
            lab.check_saved(run, before)
        lab.resume(outdir, reference)
        shutil.rmtree(outdir)


def full_disk(lab: Lab) -> None:
    """A file system that is too small; then it is enlarged."""
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
            lab.expect_exit(ended)
            lab.check_saved(only(disk / "runs"), 0)
            subprocess.run(["mount", "-o", f"remount,size={need * 4 // 1024}k", str(disk)], check=True)
            lab.resume(disk / "runs", reference)
        subprocess.run(["umount", str(disk)], check=True)


def read_only(lab: Lab) -> None:
    """A run directory in which nothing can be created or renamed any more."""
    reference = lab.reference(SLOW)
    while lab.more():
        outdir, child, run = lab.begun()
        subprocess.run(["chattr", "+i", str(run)], check=True)
        lab.expect_exit(lab.wait(child))
        lab.check_saved(run, 0)
        lab.expect_exit(lab.train(["train", "dcgan", "--resume", str(run)]) if newest(run) else Ended(2, SENTENCE, 0))
        subprocess.run(["chattr", "-i", str(run)], check=True)
        lab.resume(outdir, reference, SLOW)


def deleted(lab: Lab) -> None:
    """The run directory is deleted during the run: it is created again, with the networks as they are."""
    reference = lab.reference(SLOW)
    while lab.more():
        outdir, child, run = lab.begun()
        os.rename(run, outdir / "gone")
        ended = lab.wait(child)
        lab.expect_exit(ended)
        lab.tally.tries += 1
        if not newest(run):
            lab.tally.lost += 1
            lab.tally.note(f"lost: nothing in {run}")
            continue
        lab.train(["train", "dcgan", "--resume", str(run)])
        shutil.copy(reference / "stats.jsonl", run)  # its rows went with the directory
        lab.compare(run, reference, older=False)


# -- damage ------------------------------------------------------------------------------------------------------------


def damage(lab: Lab) -> None:
    """The newest checkpoint is damaged: the one before is used, with a message."""
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
        damaged = run / "checkpoint-000011"
        files = sorted(path for path in damaged.iterdir() if path.is_file())
        way = lab.random.choice([*ways, "no files", "no folder but a file"])
        if way == "no files":
            shutil.rmtree(damaged), damaged.mkdir()
        elif way == "no folder but a file":
            shutil.rmtree(damaged), damaged.write_bytes(b"")
        else:
            ways[way](lab.random.choice(files))
        user = lambda: None  # noqa: E731
        if way == "unreadable" and os.getuid() == 0:
            subprocess.run(["chmod", "777", str(lab.folder), str(lab.folder / "runs"), str(outdir)], check=True)
            subprocess.run(["chown", "-R", "65534:65534", str(outdir)], check=True)
            user = lambda: os.setuid(65534)  # noqa: E731
            damaged.joinpath("checkpoint.json").chmod(0)
            subprocess.run(["chown", "-R", "0:0", str(damaged)], check=True)
        ended = lab.train(["train", "dcgan", "--resume", str(run)], before=user)
        lab.tally.tries += 1
        if ended.code or "Taking the one before" not in ended.output:
            lab.expect_exit(Ended(1, f"{way}: {ended.output}", 0))
        elif not (run / "damaged-checkpoint-000011").exists():
            lab.tally.lost += 1
        else:
            shutil.rmtree(run / "damaged-checkpoint-000011", ignore_errors=True)
            lab.compare(run, reference)
