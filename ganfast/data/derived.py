"""Sources that are made of another one: ``stacked:SRC``, ``few:N:SRC``, ``edges:SRC``, ``users:K:SRC``, …"""

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


@dataclass(frozen=True)
class Derived:
    """``make(base, number)``; ``numbered``: the word has a number, as few:10:SRC."""

    make: Callable[[Dataset, int], Dataset]
    numbered: bool = False
    channels: int | None = None
    """what the base is read with"""


def split(source: str) -> tuple[str, str]:
    """("few:10:", "SRC") of a source that is made of another, ("", source) of any other."""
    word, colon, rest = source.partition(":")
    if not colon or word not in DERIVED:
        return "", source
    if not DERIVED[word].numbered:
        return f"{word}:", rest
    number, colon, rest = rest.partition(":")
    if not (number.isdecimal() and int(number) and colon and rest):
        raise InputError(f"{source}: give a whole number above 0 and a source, as {word}:10:digits")
    return f"{word}:{number}:", rest


def make(prefix: str, base: Dataset) -> Dataset:
    """What ``prefix`` makes of ``base``."""
    word, number, *_ = (*prefix.split(":"), "")
    made = DERIVED[word].make(base, int(number or 0))
    made.notes = (*base.notes, *made.notes)
    return made


def few(base: Dataset, count: int) -> Dataset:
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
    chosen = torch.stack([found[:count] for found in rows], 1).flatten()  # class by class in turn
    columns = {name: values[chosen] for name, values in base.columns.items()}
    return Dataset(f"few-{base.name}", names=base.names, **columns)


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
    "stacked": Derived(stack, channels=1),
    "few": Derived(few, numbered=True),
    "edges": Derived(edges),
    "negatives": Derived(negatives),
    "users": Derived(users, numbered=True),
}
