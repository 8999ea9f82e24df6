"""The kinds of columns that a data set has and a recipe asks for."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ganfast.errors import InputError

# column of a data set → (kind, dtypes, axes); x and y of one row belong together
COLUMNS = {
    "images": ("images", (torch.uint8,), 4),
    "targets": ("images", (torch.uint8,), 4),
    "maps": ("maps", (torch.uint8,), 4),
    "points": ("points", (torch.float32,), 2),
    "labels": ("labels", (torch.int64,), 1),
    "attributes": ("attributes", (torch.float32,), 2),
    "identities": ("identities", (torch.int64,), 1),
    "captions": ("captions", (torch.uint8,), 2),
    "tokens": ("tokens", (torch.int64,), 2),
    "audio": ("audio", (torch.int16, torch.float32), 2),
    "clips": ("clips", (torch.uint8,), 5),
}

# what to do where a data set has no such column
ADVICE = {
    "images": "give a folder, zip, IDX or array of images",
    "targets": "give pairs: pictures side by side with --layout ab, or --data A --data-b B with equal names",
    "maps": "give --data A --data-b B, where B holds label maps of equal names: palette or grey pictures of classes",
    "points": "give a .npy of floats [N, D], or gaussians:ring8",
    "labels": "put each class into a folder of its own, or add dataset.json",
    "attributes": "choose fields of dataset.json or metadata.csv with --attributes, or add a vector for each file",
    "identities": "add dataset.json or metadata.csv with the field identity",
    "captions": "add metadata.csv with the columns file_name and text",
    "tokens": "give an .npz with tokens int64 [N, T]",
    "audio": "give an .npz with audio int16 [N, T]",
    "clips": "give an .npz with clips uint8 [N, T, H, W, C]",
}


@dataclass(frozen=True)
class Spec:
    """What a network has to know of a column: ``shape`` of one sample as it sees it, and the ``names`` of classes."""

    kind: str
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many classes the labels have."""
        return len(self.names)

    def to_json(self) -> dict:
        return {"kind": self.kind, "shape": list(self.shape), "names": list(self.names)}

    @staticmethod
    def from_json(found: dict) -> "Spec":
        return Spec(str(found["kind"]), tuple(map(int, found["shape"])), tuple(map(str, found["names"])))


@dataclass(frozen=True)
class Column:
    """A recipe's request for a column: ``column`` of the data set number ``source`` (0: --data, 1: --data-b).

    ``single``: the recipe is about one picture, and the data set has no other.
    """

    kind: ClassVar[str]
    column: str = ""
    source: int = 0
    single: bool = False

    def __post_init__(self):
        if not self.column:
            object.__setattr__(self, "column", self.kind)


class Images(Column):
    """fp32 [B, C, H, W] in [−1, 1], channels_last."""

    kind = "images"


class Maps(Column):
    """int64 [B, H, W]: the class 0 … K−1 of each pixel of an image."""

    kind = "maps"


class Points(Column):
    """fp32 [B, D]."""

    kind = "points"


class Samples(Column):
    """The first column, of images or points, whichever the data has."""

    kind = "samples"


class Labels(Column):
    """int64 [B], classes 0 … K−1."""

    kind = "labels"


class Attributes(Column):
    """fp32 [B, A]: numbers that go with a sample."""

    kind = "attributes"


class Captions(Column):
    """uint8 [B, T]: texts in UTF-8, padded with zeros."""

    kind = "captions"


class Tokens(Column):
    """int64 [B, T]."""

    kind = "tokens"


class Audio(Column):
    """fp32 [B, 1, T] in [−1, 1]."""

    kind = "audio"


class Clips(Column):
    """fp32 [B, C, T, H, W] in [−1, 1]."""

    kind = "clips"


def match(recipe: str, columns: dict[str, Column], sources: list) -> dict[str, Spec]:
    """The Spec of each of a recipe's columns in its sources (data sets); ``InputError`` where one does not fit."""
    needed = 1 + max(column.source for column in columns.values())
    if len(sources) < needed:
        raise InputError(f"recipe {recipe} needs two data sets, got one: give the second one as --data-b.")
    if len(sources) > needed:
        raise InputError(f"recipe {recipe} uses one data set, got two: leave out --data-b ({sources[1].name}).")
    specs = {}
    for name, column in columns.items():
        data = sources[column.source]
        if column.column == "samples" and data.kind not in ("images", "points"):
            raise InputError(f"recipe {recipe} needs images or points, and {data.name} holds {data.kind}.")
        if column.column != "samples" and column.column not in data.columns:
            why = data.absent.get(column.column, "")
            raise InputError(
                f"recipe {recipe} needs {column.column}, and {data.name} has none{f' ({why})' if why else ''}: "
                f"{ADVICE[column.column]}."
            )
        if column.single and len(data) != 1:
            raise InputError(
                f"recipe {recipe} is about one picture, and {data.name} has {len(data)}: give one of them."
            )
        specs[name] = data.spec(data.column_of(column))
    return specs
