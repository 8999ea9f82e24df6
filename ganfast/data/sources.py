"""From the word a person gives to a data set."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ganfast.data import packed
from ganfast.data.arrays import ArrayRows, open_array
from ganfast.data.dataset import Dataset
from ganfast.data.digits import digits
from ganfast.data.files import FolderRows, ZipRows
from ganfast.data.gaussians import MODES, gaussians
from ganfast.data.idx import is_idx, open_idx, train_file
from ganfast.data.rows import Rows, check_channels, check_size, in_ram, settle
from ganfast.errors import InputError

BUILT_IN = ("digits", *(f"gaussians:{name}" for name in MODES))


def open_dataset(
    source: str,
    size: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> Dataset:
    """Open a data set; images are decoded into memory unless they lie packed or as uint8 arrays of the right size.

    Args:
        source: ``digits``, ``gaussians:ring8``, ``gaussians:grid25``; a folder or .zip of images; an IDX file or the
            folder that holds ``train-images*``; a .npy or .npz file; a packed .safetensors file. A built-in name
            comes first: write ``./digits`` for a folder of that name.
        size: side in pixels, a power of two from 16 to 256; by default the one nearest to the shorter side of the
            first image (a packed file keeps its own; digits are 32).
        channels: 1 (grey) or 3 (RGB); by default 1 when the images are all grey, else 3; arrays keep theirs.
        skip_bad: leave out files that cannot be used and name them in ``Dataset.skipped``.
        progress: show a bar on a terminal.

    Images are cropped to their central square and resized with Lanczos. Labels come from ``dataset.json``
    ({"labels": [["path", 0], ...]}), else from two or more first-level folders that hold every image.

    Raises:
        InputError: what was given cannot be used, with the file's name and what to do.
    """
    with _opened(source, size, channels, skip_bad) as (found, size, channels):
        return found if isinstance(found, Dataset) else in_ram(found, size, channels, skip_bad, progress)


def pack(
    source: str,
    dest: str,
    size: int | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> Dataset:
    """Write a data set to one memory-mappable file, DEST.safetensors, and open it. Arguments as in open_dataset.

    Rows are written as they are decoded, so memory stays small. DEST appears whole or not at all; one that exists
    stays until then.
    """
    path = packed.check_dest(dest)
    with _opened(source, size, channels, skip_bad) as (found, size, channels):
        if isinstance(found, Rows):
            return packed.write(found, path, size, channels, skip_bad, progress)
        if found.kind == "points":
            return packed.write_points(found, path)
        labels = None if found.labels is None else found.labels.numpy()
        rows = ArrayRows(found.name, str(source), found.samples.numpy(), labels)
        return packed.write(rows, path, found.shape[1], found.shape[0], skip_bad, progress)


@contextmanager
def _opened(
    source: str, size: int | None, channels: int | None, skip_bad: bool
) -> Iterator[tuple[Rows | Dataset, int, int]]:
    """The source with its size and channels settled; its files are closed afterwards."""
    check_size(size)
    check_channels(channels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what they warn of is checked here
        try:
            found = _find(os.fspath(source))
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error.strerror})") from error
        if isinstance(found, Dataset):
            _refuse_change(source, found, size, channels)
            yield found, size, channels
            return
        try:
            yield found, *settle(found, size, channels, skip_bad)
        finally:
            found.close()


def _find(source: str) -> Rows | Dataset:
    if source == "digits":
        return digits()
    if source.startswith("gaussians:"):
        return gaussians(source.partition(":")[2])
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"{source}: no such file or folder, and not one of the built-in {', '.join(BUILT_IN)}")
    if path.is_dir():
        train = train_file(path)
        return open_idx(train) if train else FolderRows(path)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return ZipRows(path)
    if suffix in (".npy", ".npz"):
        return open_array(path)
    if suffix == ".safetensors":
        return packed.open_packed(path)
    if is_idx(path):
        return open_idx(path)
    raise InputError(f"{source}: not a data set; give a folder, a .zip, .npy, .npz, IDX or packed .safetensors file")


def _refuse_change(source: str, found: Dataset, size: int | None, channels: int | None) -> None:
    if found.kind == "points" and (size or channels):
        raise InputError(f"{source}: holds points; leave out --size and --channels")
    if found.kind == "images":
        own_channels, own_size, _ = found.shape
        if (size or own_size, channels or own_channels) != (own_size, own_channels):
            raise InputError(
                f"{source}: packed at --size {own_size} with {own_channels} channels; "
                "to change them pack it again from the images"
            )
