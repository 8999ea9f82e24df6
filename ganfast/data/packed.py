"""A data set in one safetensors file that is memory-mapped when opened.

A tensor for each column, wider dtypes before narrower ones but for pictures that are written while they are decoded.
Metadata, all strings: format, name, source (rows there were), skipped (rows left out), of images size and channels; and
as JSON columns (their order), names (of classes and attributes) and absent (why columns are).
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ganfast.data.columns import COLUMNS
from ganfast.data.dataset import Dataset, slug
from ganfast.data.images import Frame
from ganfast.data.labels import renumbered
from ganfast.data.options import size_word
from ganfast.data.rows import Rows, decoded, missing
from ganfast.errors import InputError
from ganfast.files import replacing

FORMAT = "ganfast-packed-2"
FIRST_FORMAT = "ganfast-packed-1"  # images or points and labels of any whole numbers from 0, without names
BLOCK = 4096  # the header's bytes are a multiple of it: 8 for the length, the rest JSON padded with spaces
WORDS = {"uint8": "U8", "int16": "I16", "float32": "F32", "int64": "I64"}


def write_rows(rows: Rows, dest: Path, frame: Frame, skip_bad: bool, progress: bool) -> Dataset:
    """Decode into DEST row by row, and open it."""
    kept = []
    with _writing(dest) as file, ExitStack() as stack:
        others = [stack.enter_context(TemporaryFile(dir=dest.parent)) for _ in rows.pictures[1:]]

        def head(kept: np.ndarray, classes: int, room: int = 0) -> tuple[bytes, dict[str, np.ndarray]]:
            beside = rows.companions(kept)
            layout = {column: ("uint8", (len(kept), *frame.shape_of(column))) for column in rows.pictures}
            layout |= _layout(beside.columns)
            order = (*rows.pictures, *beside.columns)
            names = beside.names | ({"maps": tuple(map(str, range(classes)))} if "maps" in rows.pictures else {})
            return header(layout, order, rows.name, len(rows), names, beside.absent, room), beside.columns

        room = len(head(np.arange(len(rows)), 256)[0]) + BLOCK  # fewer rows have fewer names, most of the time
        classes = 0
        file.write(bytes(room))
        for index, row in decoded(rows, frame, skip_bad, progress):
            for out, picture in zip((file, *others), row):
                out.write(picture.tobytes())
            classes = max(classes, int(row[-1].max()) + 1)
            kept.append(index)
        for other in others:
            other.seek(0)
            shutil.copyfileobj(other, file, 2**20)
        written, columns = head(np.array(kept), classes, room)
        for column in _layout(columns):
            _append(file, columns[column])
        _move(file, room, len(written))
        file.seek(0)
        file.write(written)
    packed = open_packed(dest)
    packed.skipped = missing(rows, np.array(kept))
    return packed


def write(data: Dataset, dest: Path) -> Dataset:
    """Write a data set as it is, and open it."""
    columns = {name: values.numpy() for name, values in data.columns.items()}
    layout = _layout(columns)
    with _writing(dest) as file:
        file.write(header(layout, tuple(columns), data.name, len(data), data.names, data.absent))
        for column in layout:
            _append(file, columns[column])
    return open_packed(dest)


def _layout(columns: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape by column, the wider ones first: each then begins at a multiple of its own width."""
    widest = sorted(columns, key=lambda name: -columns[name].dtype.itemsize)
    return {name: (columns[name].dtype.name, columns[name].shape) for name in widest}


def _append(file: BinaryIO, values: np.ndarray) -> None:
    """Little-endian bytes, in stretches of 64 MiB: ``values`` may be memory-mapped."""
    step = max(1, 2**26 // max(1, values[:1].nbytes))
    for start in range(0, len(values), step):
        part = values[start : start + step]
        file.write(part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes())


def _move(file: BinaryIO, start: int, new: int) -> None:
    """Move all from ``start`` on up to ``new``, in stretches of 1 MiB, last ones first."""
    end = file.seek(0, 2) if new > start else start
    while end > start:
        begin = max(start, end - 2**20)
        file.seek(begin)
        block = file.read(end - begin)
        file.seek(begin + new - start)
        file.write(block)
        end = begin


def header(
    layout: dict[str, tuple[str, tuple[int, ...]]],
    order: tuple[str, ...],
    name: str,
    source: int,
    names: dict[str, tuple[str, ...]],
    absent: dict[str, str],
    room: int = 0,
) -> bytes:
    """What comes before the tensors: the length of the JSON as 8 little-endian bytes, and the JSON.

    Args:
        layout: dtype and shape by column, in the order in which they follow.
        order: the columns as the data set has them.
        source: how many rows there were before some were skipped.
        room: bytes to fill; as many blocks as it takes where they are fewer.
    """
    count = next(iter(layout.values()))[1][0]
    metadata = {"format": FORMAT, "name": name, "source": str(source), "skipped": str(source - count)}
    if "images" in layout:
        _, height, width, channels = layout["images"][1]
        metadata |= {"size": size_word(height, width), "channels": str(channels)}
    metadata |= {"columns": json.dumps(order), "names": json.dumps(names), "absent": json.dumps(absent)}
    entries, end = {"__metadata__": metadata}, 0
    for column, (dtype, shape) in layout.items():
        start, end = end, end + int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        entries[column] = {"dtype": WORDS[dtype], "shape": shape, "data_offsets": (start, end)}
    content = json.dumps(entries).encode()
    room = max(room, -(-(8 + len(content)) // BLOCK) * BLOCK)
    return (room - 8).to_bytes(8, "little") + content.ljust(room - 8)


@contextmanager
def _writing(dest: Path) -> Iterator[BinaryIO]:
    """A file that becomes DEST when all went well."""
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with replacing(dest) as partial, open(partial, "w+b") as file:
            yield file
    except OSError as error:
        raise InputError(f"{dest}: cannot be written ({error.strerror}); choose another place") from error


def check_dest(dest: str) -> Path:
    """DEST as a path; its name must end in .safetensors."""
    if not str(dest).endswith(".safetensors"):
        raise InputError(f"{dest}: a packed data set is a .safetensors file; use {dest}.safetensors")
    return Path(dest).expanduser()


def open_packed(path: Path) -> Dataset:
    """Open without reading: the columns are views of the mapped file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in (FORMAT, FIRST_FORMAT):
                raise InputError(f"{path}: not a packed data set; write one with `ganfast data pack SRC {path.name}`")
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged, or no safetensors file ({error}); pack it again") from error
    try:
        return _understood(slug(metadata.get("name", path.stem)), metadata, found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # InputError among them
        raise InputError(f"{path}: its tensors are not those of a packed data set ({error}); pack it again") from error


def _understood(name: str, metadata: dict[str, str], found: dict[str, torch.Tensor]) -> Dataset:
    """The data set that the tensors and the metadata make; ValueError, TypeError or KeyError where they make none."""
    names, absent = (json.loads(metadata.get(key, "{}")) for key in ("names", "absent"))
    order = json.loads(metadata["columns"]) if "columns" in metadata else [c for c in COLUMNS if c in found]
    if set(order) != set(found):
        raise ValueError(f"it has {', '.join(found)}")
    columns = {column: found[column] for column in order}
    if metadata["format"] == FIRST_FORMAT and "labels" in columns and not names:
        columns["labels"], names["labels"] = renumbered(columns["labels"])
    data = Dataset(name, names=names, absent=absent, **columns)
    for column, values in data.columns.items():
        if 0 in values.shape:
            raise ValueError(f"{column} of shape {list(values.shape)}")
    return data
