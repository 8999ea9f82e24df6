"""IDX files, the format of MNIST and its relatives, gzipped or not."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from ganfast.data import labels
from ganfast.data.arrays import ArrayRows, ImageArray
from ganfast.data.dataset import slug
from ganfast.data.rows import check_ram
from ganfast.errors import InputError


def train_file(folder: Path) -> Path | None:
    """The file of training images that an IDX folder holds, or None; uncompressed before gzipped."""
    found = sorted(f for f in folder.iterdir() if f.name.startswith("train-images") and f.is_file() and is_idx(f))
    return found[0] if found else None


def is_idx(path: Path) -> bool:
    """Whether a file's name is that of an IDX file."""
    return "ubyte" in path.name or path.name.endswith((".idx", ".gz"))


def open_idx(path: Path) -> ArrayRows:
    """Grey images [N, H, W], and labels from the file beside it when there is one that can be used."""
    images = ImageArray(str(path), _read(path, 3)[..., None])
    rows = ArrayRows(slug(path.resolve().parent.name), images)
    beside = _labels_beside(path)
    if beside is not None:
        try:
            rows.beside = labels.from_array(_read(beside, 1), len(rows))
        except InputError as error:
            rows.beside = labels.without_labels(str(error).removeprefix(f"{beside.parent}/"))
    return rows


def _labels_beside(path: Path) -> Path | None:
    stem = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    candidates = (path.with_name(stem), path.with_name(stem + ".gz"))
    return next((f for f in candidates if f.is_file() and f != path), None)


def _read(path: Path, rank: int) -> np.ndarray:
    """An array of bytes: magic 0, 0, 8 (uint8), rank; sizes as big-endian 32-bit numbers; then the values."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            magic, sizes = file.read(4), file.read(4 * rank)
            if magic != bytes((0, 0, 8, rank)):
                what = "images: 00000803" if rank == 3 else "labels: 00000801"
                raise InputError(f"{path}: begins with {magic.hex() or 'nothing'}, not as an IDX file of {what}")
            if len(sizes) < 4 * rank:
                raise EOFError("the header is cut off")
            shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
            count = int(np.prod(shape, dtype=object))
            check_ram(str(path), count)
            values = np.empty(count, np.uint8)
            got = file.readinto(values)
            if got < count or file.read(1):
                said, held = " × ".join(map(str, shape)), "fewer" if got < count else "more"
                raise InputError(f"{path}: its header says {said} values but it holds {held}; fetch it again")
            return values.reshape(shape)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: a damaged or truncated IDX file ({error}); fetch it again") from error
