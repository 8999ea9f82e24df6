"""Cases of soak.py: signals, numbers, memory, other processes, terminals, clocks. Each is a function of a Lab."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fault_lab import KILL_BEFORE, SLOW, TRAIN, Lab, newest, only, until_rows

# -- signals -----------------------------------------------------------------------------------------------------------


def signals(lab: Lab) -> None:
    """SIGINT, SIGTERM and SIGHUP save; a second one stops at once and keeps what was saved."""
    reference = lab.reference(SLOW)
    while lab.more():
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[lab.tally.tries % 3]
        twice = lab.tally.tries % 2 == 1
        outdir, child, run = lab.begun()
        before = newest(run)
        os.kill(child[0], number)
        if twice:
            time.sleep(lab.random.uniform(0, 0.03))
            os.kill(child[0], number)
        ended = lab.wait(child)
        lab.expect_exit(ended, 128 + number)
        lab.check_saved(run, before if twice else 2)
        lab.resume(outdir, reference, SLOW)


# -- numbers and memory ------------------------------------------------------------------------------------------------


def poison(position: int | None = None, step: int | None = None) -> Callable:
    """Weights become NaN when ``position`` images have been loaded, or every time before ``step``."""

    def before():
        import torch

        from ganfast import Trainer

        advance = Trainer.advance

        def poisoned(trainer):
            if trainer.images == position or trainer.step == step:
                with torch.no_grad():
                    next(trainer.state.networks["D"].parameters()).fill_(torch.nan)
            advance(trainer)

        Trainer.advance = poisoned

    return before


def not_a_number(lab: Lab) -> None:
    """A NaN loss stops the run; ``--on-nan rollback`` gets past it, also when killed during a rollback."""
    argv = [*TRAIN, "--on-nan", "rollback"]
    reference = lab.reference(argv, before=poison(position=7 * 8))
    while lab.more():
        kind = lab.tally.tries % 3
        outdir = lab.fresh()
        if kind == 0:  # stop; then go on with a rollback
            lab.expect_exit(lab.train([*TRAIN, "--outdir", str(outdir)], before=poison(position=7 * 8)))
            lab.check_saved(only(outdir), 4)
            ended = lab.train(["train", "dcgan", "--resume", str(only(outdir)), "--on-nan", "rollback"],
                              before=poison(position=7 * 8))  # fmt: skip
            lab.expect_exit(ended, 0)
            lab.compare(only(outdir), reference)
        elif kind == 1:  # it fails again and again
            ended = lab.train([*argv, "--outdir", str(outdir)], before=poison(step=6))
            lab.expect_exit(ended)
            if "3 rollbacks" not in ended.output:
                lab.tally.unreported += 1
            lab.check_saved(only(outdir), 4)
        else:  # killed
            faults = {"at": lab.random.randint(1, lab.operations), "mode": KILL_BEFORE} if lab.shim else {}
            lab.train([*argv, "--outdir", str(outdir)], before=poison(position=7 * 8), **faults)
            lab.check_saved(only(outdir), 0)
            lab.resume(outdir, reference, argv, before=poison(position=7 * 8))


def too_little_memory(lab: Lab) -> None:
    """A batch that does not fit: the message says so, and what to lower; a smaller batch fits."""
    while lab.more():
        batch = lab.random.choice([1024, 1536])
        argv = [*TRAIN, "--size", "32", "--width", "64", "--steps", "2", "--outdir", str(lab.fresh())]
        ended = lab.train([*argv, "--batch", str(batch)], before=limit(400))
        lab.tally.tries += 1
        if ended.code == -signal.SIGSEGV:  # seen once, at address 0: a library does not expect that it gets no memory
            lab.tally.note(f"batch {batch}: SIGSEGV")
            continue
        lab.expect_exit(ended)
        if "not enough memory on cpu" not in ended.output or "lower --batch" not in ended.output:
            lab.tally.unreported += 1
            lab.tally.note(ended.output[-600:])
        elif lab.train([*argv, "--batch", "16"], before=limit(450)).code:
            lab.tally.unreported += 1
            lab.tally.note("batch 16 does not fit")


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
            lab.expect_exit(lab.wait(child), 0)
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
        lab.expect_exit(ended[0], 0)
        lab.expect_exit(ended[1])
        if "is being trained by process" not in ended[1].output:
            lab.tally.unreported += 1
        lab.check_saved(run, 4)
        lab.compare(run, slow)


def impatient() -> None:
    from ganfast.training import run_directory

    run_directory.PATIENCE = 0.2


def terminals(lab: Lab) -> None:
    """No terminal, a closed pipe, no UTF-8: the run continues to its end."""
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
        output = ended.stdout + ended.stderr
        if code.read_text() != "0\n" or "Traceback" in output or "Error" in output:
            lab.tally.unreported += 1
            lab.tally.note(f"{way}: {code.read_text()} {output[-600:]}")
        lab.compare(only(outdir), reference)


def clocks(lab: Lab) -> None:
    """A clock that jumps back and forth by years."""

    def before():
        jumps = random.Random(lab.tally.tries)
        time.time = lambda: jumps.uniform(0, 4e9)

    reference = lab.reference()
    while lab.more():
        outdir = lab.fresh()
        lab.expect_exit(lab.train([*TRAIN, "--outdir", str(outdir)], before=before), 0)
        lab.check_saved(only(outdir), 11)
        lab.compare(only(outdir), reference)
