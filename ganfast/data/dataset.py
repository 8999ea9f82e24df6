"""What every source becomes: named columns of one length."""

import hashlib
import re

import torch
from torch import Tensor

from ganfast.data.columns import COLUMNS, Column, Spec
from ganfast.errors import InputError


class Dataset:
    """Columns of one length, in memory or memory-mapped: ``Dataset("mine", images=images, labels=labels)``.

    Args:
        name: short name for run directories, such as ``digits`` or ``noto-emoji-64``.
        columns: images, targets (the images' partners) uint8 [N, H, W, C]; maps (classes of pixels) uint8 [N, H, W, 1];
            points, attributes float32 [N, D]; labels, identities (who is seen) int64 [N] in 0 … K−1; captions uint8
            [N, T] (UTF-8, padded with zeros); tokens int64 [N, T]; audio int16 or float32 [N, T]; clips uint8
            [N, T, H, W, C]. The first one is what ``samples``, ``kind`` and ``shape`` mean.
        names: of the classes (``{"labels": ("cat", "dog")}``) or of the attributes.
        skipped: names of the files that ``skip_bad`` left out.
        notes: sentences on what was done on reading that a person would want to know.
        absent: why a column that the source seemed to have cannot be used: ``{"labels": "…"}``; what is said of a
            column that is there is dropped.

    Raises InputError where lengths, dtypes or ranks are others.
    """

    whole: "Dataset | None" = None
    """of pictures that are cropped: all of them, of which a Sampler may take crops at random places"""

    def __init__(
        self,
        name: str,
        *,
        names: dict[str, tuple[str, ...]] | None = None,
        skipped: tuple[str, ...] = (),
        absent: dict[str, str] | None = None,
        notes: tuple[str, ...] = (),
        **columns: Tensor | None,
    ):
        self.name, self.skipped, self.notes = name, tuple(skipped), tuple(notes)
        self.columns = {column: values for column, values in columns.items() if values is not None}
        self.absent = {column: why for column, why in (absent or {}).items() if column not in self.columns}
        if not self.columns:
            raise InputError(f"{name}: a data set needs a column: {', '.join(COLUMNS)}.")
        self.names = {column: tuple(given) for column, given in (names or {}).items() if column in self.columns}
        for column, values in self.columns.items():
            _check(f"{name}: {column}", column, values, len(self))
        if self.labels is not None and "labels" not in self.names:
            self.names["labels"] = tuple(map(str, range(int(self.labels.max()) + 1))) if len(self) else ()
        if "maps" not in self.names and "maps" in self.columns:
            self.names["maps"] = tuple(map(str, range(int(self.columns["maps"].max()) + 1)))
        for column, given in self.names.items():
            _check_names(f"{name}: {column}", column, self.columns[column], given)

    def __repr__(self):
        held = ", ".join(f"{column} {tuple(values.shape)}" for column, values in self.columns.items())
        return f"Dataset({self.name!r}: {held})"

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def samples(self) -> Tensor:
        """The first column."""
        return next(iter(self.columns.values()))

    def column_of(self, wanted: Column) -> str:
        """The name here of what a recipe asks for."""
        return next(iter(self.columns)) if wanted.column == "samples" else wanted.column

    @property
    def labels(self) -> Tensor | None:
        return self.columns.get("labels")

    @property
    def kind(self) -> str:
        """``"images"``, ``"points"``, … of the first column."""
        return COLUMNS[next(iter(self.columns))][0]

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample as a network sees it: (C, H, W) of images, (D,) of points."""
        return self.spec(next(iter(self.columns))).shape

    @property
    def num_classes(self) -> int:
        """How many classes the labels have; 0 without labels."""
        return len(self.names.get("labels", ()))

    def cropped(self, height: int, width: int) -> "Dataset":
        """The centre of all pictures, as views of these; ``whole`` are those that were cropped."""
        names = pictures_of(self)
        sizes = {tuple(self.columns[name].shape[1:3]) for name in names}
        if len(sizes) != 1 or any(high < height or wide < width for high, wide in sizes):
            held = ", ".join(f"{wide}×{high}" for high, wide in sizes) or "none"
            raise InputError(
                f"{self.name}: crops of {width}×{height} pixels need pictures of one size, no smaller, got {held}"
            )
        ((high, wide),) = sizes
        top, left = (high - height) // 2, (wide - width) // 2
        columns = dict(self.columns)
        for name in names:
            columns[name] = columns[name][:, top : top + height, left : left + width]
        found = Dataset(
            self.name, names=self.names, skipped=self.skipped, absent=self.absent, notes=self.notes, **columns
        )
        found.whole = self
        return found

    def spec(self, column: str) -> Spec:
        """What a network has to know of a column."""
        kind, shape = COLUMNS[column][0], tuple(self.columns[column].shape[1:])
        if kind == "images":
            shape = (shape[2], *shape[:2])
        elif kind == "maps":
            shape = shape[:2]
        elif kind == "clips":
            shape = (shape[3], *shape[:3])
        elif kind == "audio":
            shape = (1, *shape)
        return Spec(kind, shape, tuple(self.names.get(column, ())))

    def fingerprint(self) -> str:
        """Count, shape and a hash of 16 evenly spaced rows of each column and all labels, as ``1797x1x32x32-0f3a…``.

        Cheap on a memory-mapped file, the same packed and unpacked, so that a resumed run can refuse other data.
        """
        rows = torch.linspace(0, len(self) - 1, min(16, len(self)), dtype=torch.float64).round().long()
        digest = hashlib.sha256()
        for column, values in self.columns.items():
            digest.update((values if column == "labels" else values[rows]).contiguous().numpy().tobytes())
        return "x".join(map(str, (len(self), *self.shape))) + "-" + digest.hexdigest()[:16]


def pictures_of(data: Dataset) -> list[str]:
    """The columns of pictures [N, H, W, C]."""
    return [name for name in data.columns if COLUMNS[name][2] == 4]


def _check(title: str, column: str, values: Tensor, count: int) -> None:
    if column not in COLUMNS:
        raise InputError(f"{title} is not a column: give {', '.join(COLUMNS)}.")
    _, dtypes, axes = COLUMNS[column]
    if values.dtype not in dtypes or values.dim() != axes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise InputError(
            f"{title}: got {str(values.dtype).removeprefix('torch.')} {list(values.shape)}, needs {wanted} with "
            f"{axes} axes."
        )
    if len(values) != count:
        raise InputError(f"{title}: got {len(values)} rows beside {count} of the first column: give one for each.")
    if column == "labels" and count and int(values.min()) < 0:
        raise InputError(f"{title}: the label {int(values.min())} is negative; classes count from 0.")


def _check_names(title: str, column: str, values: Tensor, names: tuple[str, ...]) -> None:
    if column == "labels" and len(values) and int(values.max()) >= len(names):
        raise InputError(f"{title}: got {len(names)} names and the class {int(values.max())}: give one for each class.")
    if column == "attributes" and len(names) != values.shape[1]:
        raise InputError(f"{title}: got {len(names)} names for {values.shape[1]} attributes: give one for each.")


def slug(name: str) -> str:
    """A name that is safe in a path: letters, digits, dots, dashes and underscores, 64 at most."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:64] or "data"
