"""Sources that are made of another one: ``part:train:SRC``, ``few:N:SRC``, ``stacked:SRC``, ``edges:SRC``, …"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ganfast.data.dataset import Dataset
from ganfast.data.rows import check_ram
from ganfast.data.stacked import ROWS, stacked
from ganfast.data.users import users
from ganfast.errors import InputError

STRETCH = 8192  # rows at once
TENTH = 10  # of so many rows part:test: has one


@dataclass(frozen=True)
class Argument:
    """What follows a word: whatever ``form`` matches, in words and by an example."""

    form: str
    words: str
    example: str


NUMBER = Argument(r"0*[1-9]\d*", "a whole number above 0", "10")
PART = Argument("train|test", "train or test", "train")


@dataclass(frozen=True)
class Derived:
    """``make(base, argument)`` is a data set, or ``rows(base, argument)`` are those of the base that it has."""

    make: Callable[[Dataset, int | str], Dataset] | None = None
    rows: Callable[[Dataset, int | str], torch.Tensor] | None = None
    argument: Argument | None = None
    channels: int | None = None
    """what the base is read with"""


def split(source: str) -> tuple[str, str]:
    """("few:10:", "SRC") of a source that is made of another, ("", source) of any other."""
    word, colon, rest = source.partition(":")
    if not colon or word not in DERIVED:
        return "", source
    wanted = DERIVED[word].argument
    if wanted is None:
        return f"{word}:", rest
    argument, _, rest = rest.partition(":")
    if not (re.fullmatch(wanted.form, argument) and rest):
        raise InputError(f"{source}: give {wanted.words} and a source, as {word}:{wanted.example}:digits")
    return f"{word}:{argument}:", rest


def parsed(prefix: str) -> tuple[Derived, str, int | str]:
    """(what it is, its word, its argument) of a prefix that ``split`` found."""
    word, argument, *_ = (*prefix.split(":"), "")
    return DERIVED[word], word, int(argument) if argument.isdecimal() else argument


def rows(prefix: str, base: Dataset) -> torch.Tensor | None:
    """Which rows of ``base`` it has, in their order; None of what has others."""
    kind, _, argument = parsed(prefix)
    return kind.rows and kind.rows(base, argument)


def make(prefix: str, base: Dataset) -> Dataset:
    """What ``prefix`` makes of ``base``."""
    kind, word, argument = parsed(prefix)
    if kind.rows:
        chosen = kind.rows(base, argument)
        check_ram(f"{prefix}{base.name}", sum(len(chosen) * values[:1].nbytes for values in base.columns.values()))
        columns = {name: values[chosen] for name, values in base.columns.items()}
        made = Dataset(f"{word}-{base.name}", names=base.names, absent=base.absent, skipped=base.skipped, **columns)
    else:
        made = kind.make(base, argument)
    made.notes = (*base.notes, *made.notes)
    return made


def part(base: Dataset, which: str) -> torch.Tensor:
    """The rows 0, 10, 20, … are the test, all others are for training; identities, where the data has them."""
    rows = torch.arange(len(base))
    chosen = rows[(base.columns.get("identities", rows) % TENTH == 0) == (which == "test")]
    if not len(chosen):
        raise InputError(f"part:{which}:{base.name}: nothing is left of {len(base)} rows; give more data")
    return chosen


def few(base: Dataset, count: int) -> torch.Tensor:
    """``count`` rows of each class, drawn without replacement by a fixed seed; the same for everyone."""
    if base.labels is None:
        raise InputError(f"few:{count}:{base.name}: needs labels, of which it takes {count} rows each")
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(base)))
    labels = base.labels[order]
    rows = [order[labels == k] for k in range(base.num_classes)]
    if short := [base.names["labels"][k] for k, found in enumerate(rows) if len(found) < count]:
        raise InputError(
            f"few:{count}:{base.name}: class {short[0]} has fewer than {count} rows; give a smaller number"
        )
    return torch.stack([found[:count] for found in rows], 1).flatten()  # class by class in turn


def edges(base: Dataset, _: int = 0) -> Dataset:
    """Each picture's ``outlines``; its other columns stay."""
    if base.kind != "images":
        raise InputError(f"edges:{base.name}: holds {base.kind}, and edges are of images; give images")
    images = torch.cat([outlines(part) for part in base.samples.split(STRETCH)])
    return Dataset(f"edges-{base.name}", names=base.names, **(base.columns | {"images": images}))


def outlines(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, H, W, C] → the same: what a dilation by a 3×3 square adds, a pixel around what is bright."""
    planes = images.movedim(3, 1).float()
    return (F.max_pool2d(planes, 3, 1, 1) - planes).byte().movedim(1, 3).contiguous()


def negatives(base: Dataset, _: int = 0) -> Dataset:
    """Each picture with 255 − x for each value x; its other columns stay."""
    if base.kind != "images":
        raise InputError(f"negatives:{base.name}: holds {base.kind}, and negatives are of images; give images")
    return Dataset(f"negatives-{base.name}", names=base.names, **(base.columns | {"images": 255 - base.samples}))


def stack(base: Dataset, _: int) -> Dataset:
    check_ram(f"stacked:{base.name}", 3 * ROWS * base.samples[0].numel())
    return stacked(base)


DERIVED = {
    "part": Derived(rows=part, argument=PART),
    "stacked": Derived(stack, channels=1),
    "few": Derived(rows=few, argument=NUMBER),
    "edges": Derived(edges),
    "negatives": Derived(negatives),
    "users": Derived(users, argument=NUMBER),
}
