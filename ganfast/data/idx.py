"""IDX files, the format of MNIST, EMNIST, QMNIST and their relatives, compressed or not."""

import re
import zlib
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np

from ganfast.data import labels, splits
from ganfast.data.arrays import ArrayRows, ImageArray
from ganfast.data.options import DataOptions
from ganfast.data.rows import check_ram
from ganfast.data.trees import Tree, opener_of
from ganfast.errors import InputError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
COMPRESSED = (".gz", ".bz2", ".xz")
IMAGES = re.compile(r"(.*?)[-_.]?images?[-_.]?idx3?[-_.]?(ubyte|int)?(\.gz|\.bz2|\.xz)?", re.I)


def sets(tree: Tree) -> dict[str, str]:
    """Files of images by what their names begin with, such as ``train`` or ``emnist-letters-test``."""
    found = {}
    for name in sorted(tree.names, key=lambda name: name.endswith(COMPRESSED)):
        match = IMAGES.fullmatch(PurePosixPath(name).name)
        if match:
            found.setdefault(match[1], name)
    return dict(sorted(found.items()))


def open_sets(tree: Tree, found: dict[str, str], options: DataOptions) -> ArrayRows:
    """The images of one of the sets, with their labels."""
    chosen, notes = splits.choose(tree.source, found, options.split)
    rows = open_file(tree, found[chosen])
    rows.notes += notes
    return rows


def open_file(tree: Tree, name: str) -> ArrayRows:
    """Grey images [N, H, W], and labels from the file beside it when there is one that can be used."""
    source = f"{tree.source}/{name}"
    images = ImageArray(source, _read(tree, name, (3,))[..., None])
    rows = ArrayRows(tree.name, images)
    if "emnist" in PurePosixPath(name).name.lower():
        rows.transpose()
        rows.notes.append("turned the images upright, as EMNIST stores them column by column (--transpose undoes it)")
    beside = _labels_beside(tree, name)
    if beside is not None:
        try:
            values = _read(tree, beside, (1, 2))
            rows.beside = labels.from_array(values if values.ndim == 1 else values[:, 0], len(rows))
        except InputError as error:
            rows.beside = labels.without_labels(str(error).removeprefix(f"{tree.source}/"))
    return rows


def _labels_beside(tree: Tree, name: str) -> str | None:
    """train-images-idx3-ubyte.gz → train-labels-idx1-ubyte or QMNIST's train-labels-idx2-int, compressed or not."""
    folder, _, own = name.rpartition("/")
    start = re.split(r"images?", own, maxsplit=1, flags=re.I)[0]
    wanted = re.compile(re.escape(start) + r"labels?[-_.]?(idx[12])?[-_.]?(ubyte|int)?(\.idx)?(\.gz|\.bz2|\.xz)?", re.I)
    beside = (f for f in tree.names if f.rpartition("/")[0] == folder and f != name)
    found = [f for f in beside if wanted.fullmatch(f.rpartition("/")[2])]
    return min(found, key=lambda f: (f.endswith(COMPRESSED), f), default=None)


def is_idx(start: bytes) -> bool:
    """Whether a file that begins so is an IDX file: 0, 0, type, rank."""
    return len(start) >= 4 and start[:2] == b"\0\0" and start[2] in TYPES and 1 <= start[3] <= 4


def _read(tree: Tree, name: str, ranks: tuple[int, ...]) -> np.ndarray:
    """An array: magic 0, 0, type, rank; sizes as big-endian 32-bit numbers; then the values."""
    source = f"{tree.source}/{name}"
    try:
        with tree.open(name) as file:
            opener = opener_of(file)
            return _values(opener(file) if opener else file, source, ranks)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{source}: a damaged or truncated IDX file ({error}); fetch it again") from error


def _values(file: BinaryIO, source: str, ranks: tuple[int, ...]) -> np.ndarray:
    magic = file.read(4)
    if not is_idx(magic) or magic[3] not in ranks:
        what = "images: 00000803" if ranks == (3,) else "labels: 00000801"
        raise InputError(f"{source}: begins with {magic.hex() or 'nothing'}, not as an IDX file of {what}")
    dtype, rank = np.dtype(TYPES[magic[2]]), magic[3]
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise EOFError("the header is cut off")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    count = int(np.prod(shape, dtype=object)) * dtype.itemsize
    check_ram(source, count)
    values = np.empty(count, np.uint8)
    got = file.readinto(values)
    if got < count or file.read(1):
        said, held = " × ".join(map(str, shape)), "fewer" if got < count else "more"
        raise InputError(f"{source}: its header says {said} values but it holds {held}; fetch it again")
    return values.view(dtype).reshape(shape)
