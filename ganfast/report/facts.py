"""Reads a run directory, however much of it is there; what cannot be read becomes a sentence in ``missing``."""

import dataclasses
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from ganfast.errors import InputError
from ganfast.recipes import RECIPES, Recipe
from ganfast.training import TrainOptions, checkpoint

ALIVE = 120  # seconds since the last sign of life after which a run that has not ended is called silent


@dataclass
class Facts:
    run: Path
    now: float
    """seconds since the epoch, when it was read"""
    about: dict = field(default_factory=dict)
    """options.json: recipe, options, data, environment"""
    stats: list[dict] = field(default_factory=list)
    """rows of stats.jsonl: step → numbers; NaN and infinities are left out"""
    log: list[str] = field(default_factory=list)
    pictures: list[tuple[int, Path]] = field(default_factory=list)
    """(step, fakes-STEP.png), oldest first"""
    checkpoints: list["Checkpoint"] = field(default_factory=list)
    scores: dict[str, list[dict]] = field(default_factory=dict)
    """metric → rows of metric-*.jsonl, oldest first"""
    missing: list[str] = field(default_factory=list)

    def part(self, name: str) -> dict:
        """A part of ``about``; empty where it is not there."""
        value = self.about.get(name)
        return value if isinstance(value, dict) else {}

    def column(self, name: str) -> list[float]:
        """The numbers called ``name`` in ``stats``."""
        return [row[name] for row in self.stats if name in row]

    @property
    def recipe_name(self) -> str:
        return str(self.part("recipe").get("name", "unknown recipe"))

    @property
    def step(self) -> int:
        """The last step that was recorded."""
        steps = [self.stats[-1]["step"] if self.stats else 0, *(step for step, _ in self.pictures[-1:])]
        return int(max([*steps, *(each.step for each in self.checkpoints[-1:])]))

    @property
    def total_steps(self) -> int | None:
        total = self.about.get("total_steps")
        return int(total) if is_number(total) else None

    @property
    def data_names(self) -> list[str]:
        """The names of the data sets, each once."""
        found = [self.part("data").get("name") or self.part("options").get("data"), self.part("data_b").get("name")]
        return list(dict.fromkeys(str(name) for name in found if name))

    @property
    def recipe(self) -> Recipe | None:
        """The recipe with its options; None where it is not installed or was another."""
        fields = {name: value for name, value in self.part("recipe").items() if name != "name"}
        try:
            return RECIPES[self.recipe_name].from_options(fields)
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def recipe_defaults(self) -> dict | None:
        """The recipe's options by default; None where it is not installed."""
        return RECIPES[self.recipe_name]().options() if self.recipe_name in RECIPES else None

    @property
    def given(self) -> dict[str, object]:
        """Kind → what sampling is given of it."""
        given = self.recipe.given.values() if self.recipe else ()
        return {getattr(each, "kind", "images"): each for each in given}  # what is made of the data's specs is images

    @property
    def status(self) -> tuple[str, str]:
        """(one word, what it stands on)."""
        last = next((line for line in reversed(self.log) if line.strip()), "")
        at, total = f"at step {self.step:,}", self.total_steps
        at = f"{at} of {total:,}" if total else at
        if " Done: " in last or (not last and total and self.step >= total):
            return "finished", f"{self.step:,} steps"
        if " Stopped at " in last:
            return "interrupted", at
        seen = [file.stat().st_mtime for name in ("stats.jsonl", "log.txt") if (file := self.run / name).is_file()]
        if seen and self.now - max(seen) < ALIVE:
            return "running", f"{at} when this page was made"
        since = f", last sign of life {clock(max(seen))}" if seen else ""
        return "silent", f"{at}{since}: killed, or very slow"


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    step: int
    size: int
    written: float
    sound: str
    """"yes", or what is wrong; "" where it was not looked at"""


def read(run: Path) -> Facts:
    """Everything that can be read of ``run``; ``InputError`` where it is not a run directory."""
    if not run.is_dir():
        raise InputError(f"{run} is not a directory: give a run directory, as runs/00000-dcgan-digits.")
    facts = Facts(run, time.time())
    facts.checkpoints = checkpoints(run)
    facts.pictures = pictures(run)
    written = any((run / name).exists() for name in ("options.json", "stats.jsonl", "log.txt"))
    if not (facts.checkpoints or facts.pictures or written):
        raise InputError(f"{run} holds no run: give a run directory, as runs/00000-dcgan-digits.")
    read_about(facts)
    read_stats(facts)
    facts.log = text_of(run / "log.txt").splitlines()
    for file in sorted(run.glob("metric-*.jsonl")):
        rows, bad = rows_of(file)
        if rows:
            facts.scores[file.stem.removeprefix("metric-")] = rows
        if bad:
            facts.missing.append(f"{bad} line(s) of {file.name} cannot be read.")
    said = {
        "log.txt": "No log.txt: whether the run has ended is a guess.",
        "reals.png": "No reals.png: there are no real samples to compare with.",
        "generator.safetensors": "No generator.safetensors yet: it comes with the first checkpoint.",
    }
    facts.missing += [sentence for name, sentence in said.items() if not (run / name).is_file()]
    if not facts.pictures:
        facts.missing.append("No fakes-*.png: there are no generated samples to show.")
    if not facts.checkpoints:
        facts.missing.append("No checkpoint yet: what was trained is in no file so far.")
    facts.missing += [f"{each.path.name} {each.sound}." for each in facts.checkpoints if each.sound not in ("", "yes")]
    facts.missing += [f"{path.name} was set aside when the run was resumed." for path in run.glob("damaged-*")]
    return facts


def pictures(run: Path) -> list[tuple[int, Path]]:
    """(step, fakes-STEP.png), oldest first."""
    named = [(re.fullmatch(r"fakes-(\d+)\.png", path.name), path) for path in run.glob("fakes-*.png")]
    return sorted((int(match[1]), path) for match, path in named if match)


def read_about(facts: Facts) -> None:
    """options.json, else the newest manifest of a checkpoint that can be read."""
    file = facts.run / "options.json"
    try:
        content = json.loads(text_of(file))
    except ValueError:
        content = None
    if isinstance(content, dict):
        facts.about = content
        return
    problem = "options.json cannot be read" if file.exists() else "No options.json"
    for each in reversed(facts.checkpoints):
        try:
            facts.about = checkpoint.read_manifest(each.path)
        except InputError:
            continue
        facts.missing.append(f"{problem}: the options are those of {each.path.name}, the environment is unknown.")
        return
    facts.missing.append(f"{problem}: options and environment are unknown.")


def read_stats(facts: Facts) -> None:
    rows, bad = rows_of(facts.run / "stats.jsonl")
    by_step = {}
    for row in rows:
        numbers = {key: value for key, value in row.items() if is_number(value)}
        if "step" in numbers:
            by_step[numbers["step"]] = numbers
        else:
            bad += 1
    facts.stats = [by_step[step] for step in sorted(by_step)]
    if bad:
        facts.missing.append(f"{bad} line(s) of stats.jsonl cannot be read: a killed run leaves the last half written.")
    if not facts.stats:
        facts.missing.append("No rows in stats.jsonl: there are no curves.")


def checkpoints(run: Path) -> list[Checkpoint]:
    """All of ``run``, oldest first; the newest is compared with its checksums."""
    found = []
    for path in checkpoint.all_in(run):
        digits = path.name.removeprefix("checkpoint-")
        if not (path.is_dir() and digits.isdecimal()):
            continue
        try:
            sizes = [file.stat().st_size for file in path.iterdir()]
            found.append(Checkpoint(path, int(digits), sum(sizes), path.stat().st_mtime, ""))
        except OSError:  # a running trainer has just deleted it
            continue
    return [*found[:-1], *(dataclasses.replace(each, sound=soundness(each.path)) for each in found[-1:])]


def soundness(path: Path) -> str:
    try:
        files = checkpoint.read_manifest(path)["files"]
        wrong = [name for name, digest in files.items() if checkpoint.sha256(path / name) != digest]
    except (InputError, OSError) as error:
        return f"is damaged ({getattr(error, 'strerror', None) or 'its manifest cannot be read'})"
    return f"is damaged ({', '.join(wrong)} differ from the checksums)" if wrong else "yes"


def text_of(file: Path) -> str:
    """The text of ``file``; empty where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def rows_of(file: Path) -> tuple[list[dict], int]:
    """(the JSON objects of ``file``, one a line; how many lines are none)."""
    rows, bad = [], 0
    for line in text_of(file).splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad += 1
    return rows, bad


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def changed(values: dict, defaults: dict | None) -> dict:
    """Those of ``values`` that have a default and differ from it; all where there are none."""
    if defaults is None:
        return values
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    return {name: value for name, value in values.items() if name in defaults and value != defaults[name]}


def changed_options(facts: Facts) -> dict:
    """The run's options that differ from the defaults, some of which are the recipe's."""
    recipe = RECIPES.get(facts.recipe_name)
    own = {name: getattr(recipe, name) for name in ("batch", "lr_decay")} if recipe else {}
    defaults = {each.name: each.default for each in dataclasses.fields(TrainOptions) if each.name != "resume"}
    given = changed(facts.part("options"), defaults)
    return {name: value for name, value in given.items() if own.get(name) != value}


def command(facts: Facts) -> list[str]:
    """``ganfast train ...`` with every option that is not a default."""
    fields = {key: value for key, value in facts.part("recipe").items() if key != "name"}
    given = {**changed_options(facts), **changed(fields, facts.recipe_defaults)}
    words = ["ganfast", "train", facts.recipe_name]
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return words


def drawing(facts: Facts) -> list[str]:
    """``ganfast generate ...`` as it fits the recipe: of images that it is given, all classes, or seeds."""
    words = ["ganfast", "generate", "--network", str(facts.run)]
    if "maps" in facts.given:
        return [*words, "--input", str(facts.part("options").get("data_b") or "MAPS")]
    if "images" in facts.given:
        options, source = facts.part("options"), getattr(facts.given["images"], "source", 0)
        data = options.get("data_b" if source else "data")
        return [*words, "--input", "PICTURES" if options.get("layout") or not data else str(data)]
    return words if "labels" in facts.given else [*words, "--seeds", "0-63"]


def training_seconds(facts: Facts) -> float | None:
    """Time that the steps took, from each row's pace."""
    seconds, seen = 0.0, 0
    for row in facts.stats:
        if row.get("images_per_second", 0) > 0 and "images" in row:
            seconds += (row["images"] - seen) / row["images_per_second"]
            seen = row["images"]
    return seconds or None


def clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
