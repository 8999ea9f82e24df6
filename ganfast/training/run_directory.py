"""A run's own directory: made, found again, described."""

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ganfast import __version__
from ganfast.data.sources import exists
from ganfast.errors import InputError
from ganfast.files import flush, replacing
from ganfast.training import checkpoint
from ganfast.training.distributed import job
from ganfast.training.figures import headline

PATIENCE = 2.0  # seconds for a process that was just killed to die


def next_name(outdir: Path, label: str) -> str:
    """``00000-label`` with the number after the highest one there."""
    numbers = [int(match[1]) for path in outdir.glob("[0-9]*-*") if (match := re.match(r"(\d+)-", path.name))]
    return f"{max(numbers, default=-1) + 1:05d}-{label}"


def create(outdir: Path, label: str) -> Path:
    """Make the next run directory; two runs started at once get two."""
    while True:
        run = outdir / next_name(outdir, label)
        try:
            run.mkdir(parents=True)
            flush(outdir)
            return run
        except FileExistsError:
            if not run.is_dir():
                raise InputError(f"{outdir} is not a directory: give another --outdir.") from None
        except OSError as error:
            raise InputError(f"{run} cannot be made ({error.strerror}): give another --outdir.") from None


@contextlib.contextmanager
def locked(run: Path) -> Iterator[str]:
    """While this process writes to ``run``, no other may: ``InputError`` says which one does.

    The lock is the kernel's (flock), which takes it from a process that dies, however it dies. Yields a warning where
    there are no such locks, else "".
    """
    try:
        file = open(run / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{run} cannot be written ({error.strerror}): make it writable, or make room.") from None
    with file:
        for left in range(int(PATIENCE / 0.1), -1, -1):
            try:
                warning = take_lock(file)
                break
            except BlockingIOError:
                time.sleep(0.1 * (left > 0))
        else:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InputError(
                f"{run} is being trained by {owner}: wait until that has ended or stop it, or start a new run "
                "(without --resume)."
            )
        with contextlib.suppress(OSError):  # the lock holds without a name, on a full disk too
            file.truncate(0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield warning


def take_lock(file) -> str:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        raise
    except (ImportError, OSError) as error:  # Windows, and network file systems without locks
        return f"{file.name} cannot be locked ({error}): see to it that no other process trains this run."


def find(resume: Path) -> tuple[Path, list[Path]]:
    """(run, its checkpoints to try, newest first) for what a person resumes: a run directory or a checkpoint.

    A run that was killed before its first checkpoint has none.
    """
    try:
        if (resume / checkpoint.MANIFEST).is_file():
            return resume.parent, [resume]
        checkpoints = checkpoint.all_in(resume)
    except OSError as error:
        raise InputError(f"{resume} cannot be read ({error.strerror}): make it readable (--resume).") from None
    if not checkpoints and not (resume / "options.json").is_file():
        what = (
            "is not a run directory, it has neither options.json nor a checkpoint"
            if resume.is_dir()
            else "is not there"
        )
        raise InputError(f"{resume} {what}: give a run directory (--resume).")
    return resume, checkpoints[::-1]


def latest(outdir: Path, recipe: str) -> Path | None:
    """The newest run of ``recipe`` in ``outdir``, by its number."""
    for run in sorted(outdir.glob("[0-9]*-*"), reverse=True):
        with contextlib.suppress(InputError):
            if (read_options(run).get("recipe") or {}).get("name") == recipe:
                return run
    return None


def resumable(outdir: Path, recipe: str) -> Path:
    """The run that ``--resume latest`` means; ``InputError`` where there is none."""
    run = latest(outdir, recipe)
    if run is None:
        raise InputError(
            f"{outdir} holds no run of recipe {recipe} for --resume latest: give the --outdir that has one, or leave "
            "--resume out to start one."
        )
    return run


def beside(outdir: Path, about: dict) -> str:
    """What is to be known before a run starts in ``outdir``: the newest one there has the same options. Else ""."""
    run = latest(outdir, about["recipe"]["name"])
    if run is None or same(read_options(run)) != same(json.loads(json.dumps(about))):
        return ""
    saved = checkpoint.all_in(run)
    step, total = int(saved[-1].name.rpartition("-")[2]) if saved else 0, about["total_steps"]
    if step >= total:
        return f"{run} is finished and has the same options; this starts a new run."
    return f"{run} with the same options is at step {step} of {total} (--resume {run}); this starts a new run."


def same(about: dict) -> tuple:
    """What two runs of one command have in common."""
    options = {name: value for name, value in about.get("options", {}).items() if name not in ("outdir", "resume")}
    prints = [(about.get(which) or {}).get("fingerprint") for which in ("data", "data_b")]
    return about.get("recipe"), options, about.get("total_steps"), prints


def of(path: Path) -> Path | None:
    """The run that ``path`` is, or that holds it: a checkpoint or a file of its; None where there is none."""
    path = path.absolute()
    return next((place for place in (path, *path.parents[:2]) if (place / "options.json").is_file()), None)


def newest_sound(candidates: list[Path], device: torch.device) -> tuple[Path, dict, dict, dict[Path, str]]:
    """(checkpoint, manifest, state, {damaged: why}) of the first sound one; ``InputError`` where none is."""
    damaged = {}
    for directory in candidates:
        try:
            return (directory, *checkpoint.read(directory, device), damaged)
        except InputError as error:
            if directory is candidates[-1]:
                raise
            damaged[directory] = f"{error} Taking the one before."
    raise InputError("there is no checkpoint to go on from.")


def stored_options(resume: Path) -> tuple[str, dict, dict, int]:
    """(recipe name, its fields, options, steps) of the run that a person resumes, from its newest readable manifest."""
    run, candidates = find(resume)
    for directory in candidates or [run]:
        try:
            manifest = checkpoint.read_manifest(directory) if candidates else read_options(run)
            recipe = dict(manifest["recipe"])
            return recipe.pop("name"), recipe, dict(manifest["options"]), int(manifest["total_steps"])
        except (InputError, KeyError, TypeError, ValueError) as error:
            reason = error
    raise reason if isinstance(reason, InputError) else checkpoint.damaged((candidates or [run])[-1], repr(reason))


def read_options(run: Path) -> dict:
    """options.json; ``InputError`` where it cannot be read."""
    try:
        found = json.loads((run / "options.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{run} has no readable options.json ({error}): start a new run.") from None
    if not isinstance(found, dict):
        raise InputError(f"{run} has no readable options.json: start a new run.")
    return found


def data_of(about: dict, which: str = "data") -> str | None:
    """The data of a run, or its data_b, by its options.json: where its files lay, else the same word from here."""
    word = about.get("options", {}).get(which)
    source = about.get(which, {}).get("source")
    return source if source and exists(source) else word


def empty(run: Path) -> None:
    """Remove what a run that had no checkpoint wrote, but its log."""
    named = [run / name for name in ("stats.jsonl", "losses.png", "reals.png", "generator.safetensors")]
    for file in (*named, *run.glob("fakes*.png"), *run.glob("metric-*.jsonl")):
        file.unlink(missing_ok=True)
    shutil.rmtree(run / "tensorboard", ignore_errors=True)


def environment(device: torch.device) -> dict:
    """What a figure of this run depends on besides the options."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    versions = {"ganfast": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {**versions, "device": str(device), "device_name": name, "threads": torch.get_num_threads()}


def write_options(run: Path, about: dict, device: torch.device) -> None:
    """options.json: everything needed to run it again."""
    content = {**about, "environment": environment(device), "command": sys.argv, "job": job()}
    replace_text(run / "options.json", json.dumps(content, indent=2) + "\n")


def of_job(outdir: Path, total_steps: int) -> Path | None:
    """The unfinished run that this torchrun job began in ``outdir`` before its processes were started again.

    The job is known by its --rdzv-id; one without (torchrun then says "none") only while its agent counts restarts.
    """
    this = job()
    if not this or (this["id"] == "none" and not this["attempt"]):
        return None
    for run in sorted(outdir.glob("[0-9]*-*"), reverse=True):
        try:
            theirs = json.loads((run / "options.json").read_text())["job"]
        except (OSError, ValueError, KeyError):
            continue
        if theirs and theirs["id"] == this["id"]:
            saved = checkpoint.all_in(run)
            return run if not saved or saved[-1].name != checkpoint.name(total_steps) else None
    return None


def cut_stats(source: Path, target: Path, step: int) -> None:
    """Rows of ``source``/stats.jsonl and its scores up to ``step`` become ``target``'s: later ones are done again."""
    for file in (source / "stats.jsonl", *source.glob("metric-*.jsonl")):
        kept = [row for row in read_rows(file) if (row.get("step") or 0) <= step]
        replace_text(target / file.name, "".join(json.dumps(row) + "\n" for row in kept))


def replace_text(file: Path, text: str) -> None:
    """Write ``file`` whole or not at all."""
    with replacing(file) as partial:
        partial.write_text(text)


def read_stats(run: Path) -> list[dict]:
    """The rows of stats.jsonl."""
    return read_rows(run / "stats.jsonl")


def read_scores(run: Path) -> dict[str, list[tuple[int, float, float | None]]]:
    """Score → (step, value, floor) by step, of the scores that ``headline`` names; of equal steps the newest."""
    found: dict[str, dict[int, tuple]] = {}
    for file in sorted(run.glob("metric-*.jsonl")):
        for row in read_rows(file):
            head = headline(row)
            if head and row.get("step") is not None:
                found.setdefault(head[0], {})[row["step"]] = (row["step"], *head[1:])
    return {name: [points[step] for step in sorted(points)] for name, points in found.items()}


def read_rows(file: Path) -> list[dict]:
    """The rows of a .jsonl file; a last line that a killed process left half written is dropped."""
    rows = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
