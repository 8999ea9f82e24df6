"""From the word a person gives to a data set."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ganfast.data import derived, kinds, packed, splits
from ganfast.data.dataset import Dataset
from ganfast.data.digits import digits
from ganfast.data.files import EncodedImages, ImageFiles
from ganfast.data.full_size import FullSize, reading
from ganfast.data.gaussians import MODES, gaussians
from ganfast.data.images import Frame
from ganfast.data.options import DataOptions, data_fields, is_size, parse_load_size, parse_size, size_word
from ganfast.data.pairs import PairedFiles, check_layout
from ganfast.data.rows import Rows, in_ram, on_absent, on_dark, settle
from ganfast.data.trees import split_path
from ganfast.errors import InputError

BUILT_IN = ("digits", *(f"gaussians:{name}" for name in MODES))


def place_of(source: str) -> str | None:
    """Where the files of a source lie, whatever the working directory is later; None of what has none."""
    if source in BUILT_IN:
        return None
    prefix, base = derived.split(source)
    if prefix:
        place = place_of(base)
        return place and prefix + place
    return str(Path(source).expanduser().absolute())


def exists(source: str) -> bool:
    """Whether a source is built in or has files that are there."""
    prefix, base = derived.split(source)
    return exists(base) if prefix else source in BUILT_IN or split_path(Path(source).expanduser())[0].exists()


def open_dataset(source: str, targets: str | None = None, progress: bool = True, **options) -> Dataset:
    """Open a data set; images are decoded into memory unless they lie packed or as uint8 arrays of the right size.

    Args:
        source: ``digits``, ``gaussians:ring8``, ``gaussians:grid25``; ``part:test:SRC`` (every tenth row of SRC) and
            ``part:train:SRC`` (all others), ``few:N:SRC`` (N rows of each class), ``stacked:SRC`` (three grey images as
            the channels of one), ``edges:SRC`` (outlines), ``negatives:SRC``, ``users:K:SRC`` (attributes of K
            simulated users); a folder, .zip or .tar of images, or a folder inside an archive (``pictures.zip/cats``);
            IDX, CIFAR, parquet, .npy or .npz files, or a folder of them; a packed .safetensors file; docs/data.md has
            all. A built-in name comes first: write ``./digits`` for a folder of that name.
        targets: a second folder or archive with the images' partners, at the same paths up to the suffix.
        progress: show a bar on a terminal.
        options: the fields of ``ganfast.data.DataOptions``: size, channels, fit, split, layout, …

    ``Dataset.notes`` says what was done that a person would want to know: which part was taken, what was passed over.
    Labels come from a table beside the images (dataset.json, metadata.csv), from an array ``labels`` or ``y``, else
    from two or more first-level folders that hold every image. Whole numbers and strings become the classes 0 … K−1,
    their names are kept in ``Dataset.names["labels"]``; so do one-hot vectors; floats and other vectors become the
    column attributes. Labels that cannot be used leave the data set without that column, and
    ``Dataset.absent["labels"]`` says why.

    Raises:
        InputError: what was given cannot be used, with the file's name and what to do.
    """
    return open_titled(source, targets, progress, **options)[0]


def open_titled(
    source: str, targets: str | None = None, progress: bool = True, **options
) -> tuple[Dataset, list[str] | None]:
    """The data set, and the file of each row; None where rows are no files."""
    opts = DataOptions(**options)
    data, titles = _titled(source, targets, progress, opts)
    return _cropped(data, opts), titles


def _cropped(data: Dataset, opts: DataOptions) -> Dataset:
    return data if opts.load_size is None else data.cropped(*parse_size(opts.size))


def _titled(source: str, targets: str | None, progress: bool, opts: DataOptions) -> tuple[Dataset, list[str] | None]:
    """As open_titled, of pictures that are not cropped yet."""
    if derived.split(os.fspath(source))[0]:
        return _made(source, targets, progress, opts)
    with _opened(source, opts, targets) as (found, frame):
        if isinstance(found, Dataset):
            return found, None
        data, kept = in_ram(found, frame, opts.skip_bad, progress)
        data.notes = (*found.notes, *on_absent(data), *on_dark(data))
        return data, [found.title(k) for k in kept] if isinstance(found, (ImageFiles, PairedFiles)) else None


def open_full_size(source: str, files: ExitStack, progress: bool = True, **options) -> FullSize | None:
    """The pictures of a source at their own sizes until ``files`` is closed; None where it is no files of pictures.

    ``options``: channels and skip_bad of ``ganfast.data.DataOptions``.
    """
    opts = DataOptions(**options)
    if derived.split(source)[0]:
        return None
    with reading():
        found = _find(source, opts, files)
    if not isinstance(found, EncodedImages):
        return None
    return FullSize(found, opts.channels, opts.skip_bad, progress)


def pack(source: str, dest: str, targets: str | None = None, progress: bool = True, **options) -> Dataset:
    """Write a data set to one memory-mappable file, DEST.safetensors, and open it. Arguments as in open_dataset.

    Every column is kept, with its names; pictures that are to be cropped have their load_size. Rows are written as they
    are decoded, so memory stays small. DEST appears whole or not at all; one that exists stays until then.
    """
    path = packed.check_dest(dest)
    opts = DataOptions(**options)
    with _opened(source, opts, targets) as (found, frame):
        if isinstance(found, Dataset):
            data = packed.write(found, path)
            data.notes = found.notes
            return data
        data = packed.write_rows(found, path, frame, opts.skip_bad, progress)
        data.notes = (*found.notes, *on_absent(data), *on_dark(data))
        return data


@contextmanager
def _opened(source: str, opts: DataOptions, targets: str | None) -> Iterator[tuple[Rows | Dataset, Frame | None]]:
    """The source with its size and channels settled; its files are closed afterwards."""
    check_layout(opts.layout, targets)
    if derived.split(os.fspath(source))[0]:
        yield _made(source, targets, True, opts)[0], None
        return
    with reading(), ExitStack() as files:
        found = _find(source, opts, files)
        if targets is not None:
            if prefix := derived.split(os.fspath(targets))[0]:
                raise InputError(f"{targets}: the images say which rows of pairs are taken; leave out {prefix}")
            other = _find(targets, opts, files)
            for title, side in ((source, found), (targets, other)):
                if not isinstance(side, ImageFiles):
                    raise InputError(f"{title}: pairs of two sources are folders or zips of images; give these")
            found = PairedFiles(found, other)
        if isinstance(found, Dataset):
            _refuse_change(source, found, opts)
            found.notes = (*found.notes, *on_absent(found))
            yield found, None
            return
        if opts.layout:
            found.halve(opts.layout)
        if opts.maps:
            found.as_maps()
        if opts.transpose:
            found.transpose()
        yield found, settle(found, opts)


def open_base(source: str, targets: str | None = None, progress: bool = True, **options) -> Dataset:
    """The data set that ``source``, such as ``stacked:SRC``, is made of; arguments as in open_dataset."""
    opts = DataOptions(**options)
    return _cropped(_base(source, targets, progress, opts)[0], opts)


def _base(source: str, targets: str | None, progress: bool, opts: DataOptions) -> tuple[Dataset, list[str] | None]:
    prefix, base = derived.split(os.fspath(source))
    if channels := derived.parsed(prefix)[0].channels:
        if opts.channels not in (None, 3):
            raise InputError(f"{source}: --channels {opts.channels}: stacked images have 3; leave the option out")
        opts = replace(opts, channels=channels)
    return _titled(base, targets, progress, opts)


def _made(source: str, targets: str | None, progress: bool, opts: DataOptions) -> tuple[Dataset, list[str] | None]:
    """What is made of another source, or rows of it; of pairs the rows are the images', whatever is said of both."""
    prefix = derived.split(os.fspath(source))[0]
    if targets is not None:
        if not derived.parsed(prefix)[0].rows:
            raise InputError(f"{source}: images made of others have no partners; give a folder or zip of images")
        targets = os.fspath(targets).removeprefix(prefix)
    base, titles = _base(source, targets, progress, opts)
    rows = derived.rows(prefix, base)
    return derived.make(prefix, base), None if titles is None or rows is None else [titles[k] for k in rows]


def _find(source: str, opts: DataOptions, files: ExitStack) -> Rows | Dataset:
    """What ``source`` names; ``files`` closes it."""
    try:
        found = _named(os.fspath(source), opts)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    if isinstance(found, Rows):
        files.callback(found.close)
        if opts.shape is not None and not found.reshaped:
            raise InputError(f"{source}: --shape is for arrays of flat rows; leave it out")
        if opts.attributes is not None and not isinstance(found, ImageFiles):
            raise InputError(f"{source}: --attributes chooses fields of a table beside images; leave it out")
    return found


def _named(source: str, opts: DataOptions) -> Rows | Dataset:
    if source == "digits" or source.startswith("gaussians:"):
        splits.refuse(source, opts.split)
        return digits() if source == "digits" else gaussians(source.partition(":")[2])
    path = Path(source).expanduser()
    if not split_path(path)[0].exists():
        raise InputError(f"{source}: no such file or folder, and not one of the built-in {', '.join(BUILT_IN)}")
    return kinds.open_path(path, opts)


def _refuse_change(source: str, found: Dataset, opts: DataOptions) -> None:
    """InputError where an option asks for what a data set that lies ready cannot become."""
    defaults = data_fields(DataOptions())
    asked = [
        name
        for name, value in data_fields(opts).items()
        if name not in ("skip_bad", "maps") and value != defaults[name]
    ]
    if found.kind == "images":
        channels, *sides = found.shape
        size = parse_size(opts.size)
        if (parse_load_size(opts.load_size, size) or size) in (None, tuple(sides)) and opts.channels in (
            None,
            channels,
        ):
            asked = [name for name in asked if name not in ("size", "load_size", "channels")]
            if opts.load_size is None and not is_size(*sides):
                raise InputError(
                    f"{source}: packed for crops at random: give --load-size {size_word(*sides)}, and a --size below it"
                )
        if asked:
            flag = asked[0].replace("_", "-")
            raise InputError(
                f"{source}: packed at --size {size_word(*sides)} with {channels} channels, and --{flag} is for the "
                "images; pack it again from them with it"
            )
    elif asked := [name for name in asked if name != "split"]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise InputError(f"{source}: holds {found.kind}, not images; leave out {flags}")
