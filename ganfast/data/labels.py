"""Columns beside the samples: labels, in whatever form they come, as classes 0 … K−1 with names or as attributes.

What cannot be used is left out with the reason, so that it stops only a recipe that asks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ganfast.errors import InputError

MAX_CAPTION = 4096  # bytes of one caption


@dataclass
class Companions:
    """Arrays [N, …] by column, the names of their classes or attributes, and why a column is absent."""

    columns: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def __or__(self, other: "Companions") -> "Companions":
        """Both; columns of ``other`` come first where both have them."""
        return Companions(self.columns | other.columns, self.names | other.names, self.absent | other.absent)

    def take(self, kept: np.ndarray) -> "Companions":
        """Those of the rows ``kept``."""
        return Companions({name: values[kept] for name, values in self.columns.items()}, self.names, self.absent)

    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in self.columns.items()}


def without_labels(why: str) -> Companions:
    """Neither classes nor attributes, and why."""
    return Companions(absent={"labels": why, "attributes": why})


def from_array(labels: np.ndarray, count: int, names: Sequence[str] | None = None) -> Companions:
    """The column ``labels`` or ``attributes`` that an array of labels is; absent with the reason where it is neither.

    Whole numbers, bools and strings [N] or [N, 1] are classes, numbered in ascending order of their values; one-hot
    vectors [N, K] are classes by their index; floats [N] and other vectors [N, A] are attributes.

    Args:
        count: N, the number of samples.
        names: of the classes by number, or of the attributes; by default the values or numbers themselves.
    """
    try:
        if labels.dtype.kind not in "biufUSO":
            raise InputError(f"labels of {labels.dtype} are neither numbers nor strings")
        if not 1 <= labels.ndim <= 2 or 0 in labels.shape[1:]:
            raise InputError(f"labels have the shape {list(labels.shape)}, not [N] or [N, A]")
        if len(labels) != count:
            raise InputError(f"{len(labels)} labels for {count} samples")
        return _from_rows(labels, names) if count else Companions()
    except InputError as error:
        return without_labels(str(error))


def _from_rows(labels: np.ndarray, names: Sequence[str] | None) -> Companions:
    text = labels.dtype.kind in "USO"
    if labels.ndim == 1 or labels.shape[1] == 1:
        if text or labels.dtype.kind in "biu":
            classes, names = _numbered(labels.reshape(-1), None if text else names)
            return Companions({"labels": classes}, {"labels": names})
    elif text:
        raise InputError(f"labels are strings of shape {list(labels.shape)}, not one for each sample")
    elif ((labels == 0) | (labels == 1)).all() and (np.count_nonzero(labels, axis=1) == 1).all():
        return Companions({"labels": labels.argmax(1).astype(np.int64)}, {"labels": fitting(names, labels.shape[1])})
    values = attributes(labels)
    return Companions(
        {"attributes": values},
        {"attributes": fitting(names, values.shape[1])},
        {"labels": "its labels are numbers or vectors, which make the column attributes"},
    )


def _numbered(ids: np.ndarray, names: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """int64 classes 0 … K−1 in ascending order of their ids, and their names; with ``names`` an id may be an index."""
    if ids.dtype.kind == "S":
        ids = np.char.decode(ids, "utf-8", "replace")
    found, numbers = np.unique(ids.astype(np.uint8) if ids.dtype.kind == "b" else ids, return_inverse=True)
    numbers = numbers.astype(np.int64)
    if names is None:
        return numbers, tuple(map(str, found))
    if found[0] >= 0 and found[-1] < len(names):
        return ids.astype(np.int64), tuple(names)
    if len(found) == len(names):
        return numbers, tuple(names)
    raise InputError(f"{len(names)} names for {len(found)} classes from {found[0]} to {found[-1]}")


def renumbered(labels: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """int64 labels of any values as classes 0 … K−1, and their names."""
    numbers, names = _numbered(labels.numpy(), None)
    return torch.from_numpy(numbers), names


def fitting(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """``count`` names: those given, by default the numbers; InputError where there are fewer or more."""
    if names is not None and len(names) != count:
        raise InputError(f"{len(names)} names for labels of length {count}")
    return tuple(map(str, range(count))) if names is None else tuple(names)


def attributes(values: np.ndarray) -> np.ndarray:
    """Numbers [N] or [N, A] as float32 [N, A]; InputError for other shapes and types, NaN and infinity."""
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2) or 0 in values.shape[1:]:
        raise InputError(f"{values.dtype} of shape {list(values.shape)}, not numbers [N, A]")
    with np.errstate(over="ignore"):
        values = (values[:, None] if values.ndim == 1 else values).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError("NaN or infinity (in float32) among the values; remove them")
    return values


def captions(texts: Sequence[str]) -> np.ndarray:
    """The column captions of some texts: UTF-8, uint8 [N, T], padded with zeros; ``text`` reads a row."""
    encoded = [text.encode("utf-8", "replace")[:MAX_CAPTION] for text in texts]
    found = np.zeros((len(encoded), max(map(len, encoded), default=0) or 1), np.uint8)
    for row, each in zip(found, encoded):
        row[: len(each)] = np.frombuffer(each, np.uint8)
    return found


def text(row: Tensor) -> str:
    """The text in a row of the column captions."""
    return bytes(row.tolist()).rstrip(b"\0").decode("utf-8", "ignore")


def from_folders(paths: list[str]) -> Companions:
    """Classes from the first-level folders, sorted, when there are two or more and they hold every image."""
    folders = [path.split("/")[0] for path in paths if "/" in path]
    if len(set(folders)) < 2:
        return Companions()
    if len(folders) < len(paths):
        return without_labels(f"{len(paths) - len(folders)} of {len(paths)} files lie outside the folders of classes")
    classes, names = _numbered(np.array(folders, object), None)
    return Companions({"labels": classes}, {"labels": names})
