"""From the word a person gives to a data set."""

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ganfast.data import packed
from ganfast.data.dataset import Dataset
from ganfast.data.digits import digits
from ganfast.data.files import FolderRows, ImageFiles, ZipRows
from ganfast.data.gaussians import MODES, gaussians
from ganfast.data.idx import is_idx, open_idx, train_file
from ganfast.data.numpy_files import open_array
from ganfast.data.options import DataOptions
from ganfast.data.pairs import PairedFiles, check_layout
from ganfast.data.rows import Rows, check_channels, check_size, in_ram, settle
from ganfast.errors import InputError

BUILT_IN = ("digits", *(f"gaussians:{name}" for name in MODES))


def open_dataset(
    source: str,
    targets: str | None = None,
    progress: bool = True,
    **options,
) -> Dataset:
    """Open a data set; images are decoded into memory unless they lie packed or as uint8 arrays of the right size.

    Args:
        source: ``digits``, ``gaussians:ring8``, ``gaussians:grid25``; a folder or .zip of images; an IDX file or the
            folder that holds ``train-images*``; a .npy or .npz file; a packed .safetensors file. A built-in name
            comes first: write ``./digits`` for a folder of that name.
        size: side in pixels, a power of two from 16 to 256; by default the one nearest to the shorter side of the
            first image (a packed file keeps its own; digits are 32).
        channels: 1 (grey) or 3 (RGB); by default 1 when the images are all grey, else 3; arrays keep theirs. Images
            and targets have the same.
        skip_bad: leave out files that cannot be used and name them in ``Dataset.skipped``.
        progress: show a bar on a terminal.
        layout: ``"ab"``: each picture holds a pair, the left half is the image and the right half its target;
            ``"ba"``: the other way round.
        targets: a second folder or .zip with the targets, at the same paths up to the suffix.

    Images are cropped to their central square and resized with Lanczos; so are targets.

    Labels come from ``dataset.json`` ({"labels": [["path", 0], ...], "names": ["cat", ...]}), from an array ``labels``
    or ``y``, else from two or more first-level folders that hold every image. Whole numbers and strings become the
    classes 0 … K−1, their names are kept in ``Dataset.names["labels"]``; so do one-hot vectors; floats and other
    vectors become the column attributes. Labels that cannot be used leave the data set without that column, and
    ``Dataset.absent["labels"]`` says why.

    Raises:
        InputError: what was given cannot be used, with the file's name and what to do.
    """
    opts = DataOptions(**options)
    skip_bad = opts.skip_bad
    with _opened(source, opts.size, opts.channels, skip_bad, opts.layout, targets) as (found, size, channels):
        return found if isinstance(found, Dataset) else in_ram(found, size, channels, skip_bad, progress)


def pack(
    source: str,
    dest: str,
    targets: str | None = None,
    progress: bool = True,
    **options,
) -> Dataset:
    """Write a data set to one memory-mappable file, DEST.safetensors, and open it. Arguments as in open_dataset.

    Every column is kept, with its names. Rows are written as they are decoded, so memory stays small. DEST appears
    whole or not at all; one that exists stays until then.
    """
    path = packed.check_dest(dest)
    opts = DataOptions(**options)
    skip_bad = opts.skip_bad
    with _opened(source, opts.size, opts.channels, skip_bad, opts.layout, targets) as (found, size, channels):
        if isinstance(found, Dataset):
            return packed.write(found, path)
        return packed.write_rows(found, path, size, channels, skip_bad, progress)


@contextmanager
def _opened(
    source: str,
    size: int | None,
    channels: int | None,
    skip_bad: bool,
    layout: str | None,
    targets: str | None,
) -> Iterator[tuple[Rows | Dataset, int, int]]:
    """The source with its size and channels settled; its files are closed afterwards."""
    check_size(size)
    check_channels(channels)
    check_layout(layout, targets)
    with warnings.catch_warnings(), ExitStack() as files:
        warnings.filterwarnings("ignore", module="PIL")  # what they warn of is checked here
        found = _find(source, files)
        if targets is not None:
            other = _find(targets, files)
            for title, side in ((source, found), (targets, other)):
                if not isinstance(side, ImageFiles):
                    raise InputError(f"{title}: pairs of two sources are folders or zips of images; give these")
            found = PairedFiles(found, other)
        if isinstance(found, Dataset):
            _refuse_change(source, found, size, channels, layout)
            yield found, size, channels
            return
        if layout:
            found.split(layout)
        yield found, *settle(found, size, channels, skip_bad)


def _find(source: str, files: ExitStack) -> Rows | Dataset:
    """What ``source`` names; ``files`` closes it."""
    try:
        found = _named(os.fspath(source))
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    if isinstance(found, Rows):
        files.callback(found.close)
    return found


def _named(source: str) -> Rows | Dataset:
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


def _refuse_change(source: str, found: Dataset, size: int | None, channels: int | None, layout: str | None) -> None:
    if found.kind != "images" and (size or channels or layout):
        raise InputError(f"{source}: holds {found.kind}; leave out --size, --channels and --layout")
    if layout:
        raise InputError(f"{source}: is packed, and --layout {layout} is for the pictures; pack it again with it")
    if found.kind == "images":
        own_channels, own_size, _ = found.shape
        if (size or own_size, channels or own_channels) != (own_size, own_channels):
            raise InputError(
                f"{source}: packed at --size {own_size} with {own_channels} channels; "
                "to change them pack it again from the images"
            )
