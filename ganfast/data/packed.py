"""A data set in one safetensors file that is memory-mapped when opened.

Images: "images" uint8 [N, H, W, C], then "labels" int64 [N] if any. Points: "points" float32 [N, D] and labels.
Metadata: format, name, size, channels, source (files there were), skipped (files left out), all strings.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ganfast.data.dataset import Dataset, slug
from ganfast.data.rows import Rows, decoded, missing
from ganfast.errors import InputError

FORMAT = "ganfast-packed-1"
HEADER = 4096  # bytes before the first row: 8 for the length, the rest JSON padded with spaces


def write(rows: Rows, dest: Path, size: int, channels: int, skip_bad: bool, progress: bool) -> Dataset:
    """Decode into DEST row by row, and open it."""
    kept = []
    with replacing(dest) as file:
        file.write(bytes(HEADER))
        for index, row in decoded(rows, size, channels, skip_bad, progress):
            file.write(row.tobytes())
            kept.append(index)
        shape = (len(kept), size, size, channels)
        labels = rows.labels(np.array(kept))
        if labels is not None:
            file.write(labels.astype("<i8").tobytes())
        file.seek(0)
        file.write(header(shape, labels is not None, rows.name, len(rows)))
    packed = open_packed(dest)
    packed.skipped = missing(rows, np.array(kept))
    return packed


def header(shape: tuple[int, ...], labelled: bool, name: str, source: int) -> bytes:
    """The first 4096 bytes: the length of the JSON as 8 little-endian bytes, and the JSON."""
    end = int(np.prod(shape, dtype=object))
    skipped = source - shape[0]
    entries = {
        "__metadata__": {
            "format": FORMAT,
            "name": name,
            "size": str(shape[1]),
            "channels": str(shape[3]),
            "source": str(source),
            "skipped": str(skipped),
        },
        "images": {"dtype": "U8", "shape": shape, "data_offsets": (0, end)},
    }
    if labelled:  # a row of 16×16 bytes or more keeps them on an 8-byte boundary
        entries["labels"] = {"dtype": "I64", "shape": shape[:1], "data_offsets": (end, end + 8 * shape[0])}
    return (HEADER - 8).to_bytes(8, "little") + json.dumps(entries).encode().ljust(HEADER - 8)


def write_points(points: Dataset, dest: Path) -> Dataset:
    """Write points, which fit in memory, and open them."""
    tensors = {"points": points.samples.contiguous()}
    if points.labels is not None:
        tensors["labels"] = points.labels
    metadata = {"format": FORMAT, "name": points.name, "source": str(len(points)), "skipped": "0"}
    with replacing(dest) as file:
        file.write(save(tensors, metadata))
    return open_packed(dest)


@contextmanager
def replacing(dest: Path) -> Iterator[BinaryIO]:
    """A file that becomes DEST when all went well; otherwise it is removed and DEST stays as it was."""
    temporary = dest.with_name(f".{dest.name}.{os.getpid()}.tmp")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, dest)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{dest}: cannot be written ({error.strerror}); choose another place") from error


def check_dest(dest: str) -> Path:
    """DEST as a path; its name must end in .safetensors."""
    if not str(dest).endswith(".safetensors"):
        raise InputError(f"{dest}: a packed data set is a .safetensors file; use {dest}.safetensors")
    return Path(dest).expanduser()


def open_packed(path: Path) -> Dataset:
    """Open without reading: the images are a view of the mapped file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path}: not a packed data set; write one with `ganfast data pack SRC {path.name}`")
            names = set(file.keys())
            samples = file.get_tensor("images" if "images" in names else "points")
            labels = file.get_tensor("labels") if "labels" in names else None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged, or no safetensors file ({error}); pack it again") from error
    _check(path, samples, labels)
    kind = "images" if samples.ndim == 4 else "points"
    return Dataset(slug(metadata.get("name", path.stem)), **{kind: samples}, labels=labels)


def _check(path: Path, samples: torch.Tensor, labels: torch.Tensor | None) -> None:
    shape = samples.shape
    images = samples.dtype == torch.uint8 and len(shape) == 4 and shape[1] == shape[2]
    points = samples.dtype == torch.float32 and len(shape) == 2
    labelled = labels is None or (labels.dtype == torch.int64 and labels.shape == shape[:1])
    if not (images or points) or 0 in shape or not labelled:
        raise InputError(f"{path}: its tensors are not those of a packed data set; pack it again")
