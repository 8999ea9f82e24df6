"""What a source is: the one place that decides how a file, and how a folder or an archive, is read."""

import contextlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ganfast.data import cifar, idx, packed, parquet, splits
from ganfast.data.dataset import Dataset
from ganfast.data.files import ImageFiles
from ganfast.data.numpy_files import open_array
from ganfast.data.options import DataOptions
from ganfast.data.rows import Rows
from ganfast.data.side_files import kind_of
from ganfast.data.trees import COMPRESSED, File, Folder, Tar, Tree, Zip, opener_of, split_path
from ganfast.errors import InputError

Opener = Callable[[Path, DataOptions], Rows | Dataset]
START = 600  # bytes that tell kinds of files apart


@dataclass(frozen=True)
class Kind:
    """Files that begin with one of ``magic`` (offset, bytes) or, where no kind does, end with one of ``suffixes``."""

    title: str
    suffixes: str
    magic: tuple[tuple[int, bytes], ...]
    open: Opener | str
    """how it is read, or what to do instead"""


def open_path(path: Path, options: DataOptions) -> Rows | Dataset:
    """What lies at ``path``; InputError says what it is where it cannot be read."""
    if path.is_dir():
        return open_tree(Folder(path), options)
    place, inside = split_path(path)
    kind = kind_of_file(place)
    if inside and kind not in (ZIP, TAR):
        raise InputError(f"{path}: {place} is {kind.title}; only a .zip or .tar has folders inside it")
    if inside:
        return open_tree((Zip if kind is ZIP else Tar)(place), options, inside)
    if isinstance(kind.open, str):
        raise InputError(f"{path}: {kind.title}; {kind.open}")
    return kind.open(path, options)


def kind_of_file(path: Path) -> Kind:
    with open(path, "rb") as file:
        opener, start = opener_of(file), file.read(START)
    inner = b""
    if opener is not None:
        with contextlib.suppress(OSError, EOFError, ValueError), opener(path) as content:
            inner = content.read(START)
    if idx.is_idx(inner or start):
        return IDX
    name = path.name.lower()
    if opener is not None and (inner[257:262] == b"ustar" or name.endswith(tuple(TAR.suffixes.split()))):
        return TAR
    by_suffix = [kind for kind in KINDS if name.endswith(tuple(kind.suffixes.split()))]
    by_magic = [k for k in KINDS if any(start[at : at + len(magic)] == magic for at, magic in k.magic)]
    both = [kind for kind in by_magic if kind in by_suffix]
    if found := both or by_magic or by_suffix:
        return found[0]
    if not start:
        return EMPTY
    return IMAGE if _is_image(path) else UNKNOWN


def _is_image(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except Exception:  # whatever Pillow's plugins raise
        return path.suffix.lower() in Image.registered_extensions()


def open_tree(tree: Tree, options: DataOptions, inside: str = "") -> Rows | Dataset:
    """The data set in a folder or an archive, or ``inside`` one, by the first layout that finds something there."""
    try:
        if inside:
            tree.enter(inside)
        for find, open_found in LAYOUTS:
            found = find(tree)
            if found:
                return open_found(tree, found, options)
    except Exception:
        tree.close()
        raise
    raise InputError(f"{tree.source}: holds no images")


def _images(tree: Tree) -> bool:
    return any(kind_of(name) is None for name in tree.names)


def _only_file(tree: Tree) -> list[Path]:
    """Files in a folder without images that are data sets by themselves."""
    paths = [tree.path(name) for name in tree.names if kind_of(name) in ("archives", "arrays")]
    return [path for path in paths if path is not None]


def _open_only(tree: Tree, found: list[Path], options: DataOptions) -> Rows | Dataset:
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5]) + ", …" * (len(found) > 5)
        raise InputError(f"{tree.source}: holds {names}; give one of these")
    return open_path(found[0], options)


# what finds the files of a layout in a folder or an archive, and what reads them; the first that finds some counts
LAYOUTS: tuple[tuple[Callable, Callable[..., Rows | Dataset]], ...] = (
    (idx.sets, idx.open_sets),
    (cifar.sets, cifar.open_sets),
    (_images, lambda tree, found, options: ImageFiles(tree, options)),
    (parquet.sets, parquet.open_sets),
    (_only_file, _open_only),
)


def _in_tree(kind: type[Tree]) -> Opener:
    return lambda path, options: open_tree(kind(path), options)


def _open_idx(path: Path, options: DataOptions) -> Rows:
    """One file, beside which its labels lie."""
    splits.refuse(str(path), options.split)
    return idx.open_file(Folder(path.parent, [f.name for f in path.parent.iterdir() if f.is_file()]), path.name)


def _open_parquet(path: Path, options: DataOptions) -> Rows:
    return parquet.open_sets(File(path), {"all": [path.name]}, options)


def _open_packed(path: Path, options: DataOptions) -> Dataset:
    splits.refuse(str(path), options.split)
    return packed.open_packed(path)


CONVERT = "save its images as .npz (images uint8 [N, H, W, C], labels) or as a folder of PNGs and give that"
EXTRACT = "extract it and give the folder"
AGAIN = "fetch it again"

IDX = Kind("an IDX file", "ubyte .idx", (), _open_idx)
TAR = Kind("a tar file", ".tar .tar.gz .tgz .tar.bz2 .tar.xz", ((257, b"ustar"),), _in_tree(Tar))
ZIP = Kind("a zip file", ".zip", ((0, b"PK\3\4"), (0, b"PK\5\6")), _in_tree(Zip))
IMAGE = Kind("an image", "", (), lambda path, options: ImageFiles(File(path), options))
EMPTY = Kind("an empty file", "", (), AGAIN)
UNKNOWN = Kind(
    "a file of no kind that is known here", "", (),
    "give a folder, .zip or .tar of images, an IDX, .npy, .npz, parquet or packed .safetensors file",
)  # fmt: skip

KINDS = (
    Kind("an array", ".npy", ((0, b"\x93NUMPY"),), open_array),
    Kind("an archive of arrays", ".npz", ((0, b"PK\3\4"), (0, b"PK\5\6")), open_array),
    Kind("weights or tensors that torch.save wrote", ".pt .pth .ckpt", ((0, b"PK\3\4"),), CONVERT),
    ZIP,
    Kind("a packed data set", ".safetensors", ((8, b"{"),), _open_packed),
    Kind("a parquet file", ".parquet", ((0, b"PAR1"),), _open_parquet),
    TAR,
    IDX,
    Kind("a 7z file", ".7z", ((0, b"7z\xbc\xaf"),), EXTRACT),
    Kind("a RAR file", ".rar", ((0, b"Rar!"),), EXTRACT),
    Kind("an HDF5 or MATLAB 7.3 file", ".h5 .hdf5", ((0, b"\x89HDF"),), CONVERT),
    Kind("a MATLAB file", ".mat", ((0, b"MATLAB 5.0"),), CONVERT),
    Kind("an SQLite database", ".db .sqlite", ((0, b"SQLite format 3"),), CONVERT),
    Kind("a TFRecord or LMDB file", ".tfrecord .mdb", (), CONVERT),
    Kind(
        "a web page, perhaps the error page of a download",
        ".html .htm",
        ((0, b"<!DOCTYPE"), (0, b"<!doctype"), (0, b"<html")),
        AGAIN,
    ),
    Kind("a pointer of Git LFS, not the file", "", ((0, b"version https://git-lfs"),), "run git lfs pull"),
    Kind(
        "a Python pickle, which could run code",
        ".pkl .pickle",
        tuple((0, pickle.PROTO + bytes([protocol])) for protocol in range(2, 6)),
        CONVERT,
    ),
    Kind("a table or a text", ".csv .tsv .json .jsonl .txt .md", (), "give the folder with the images that it names"),
    Kind("a film or a sound", ".mp4 .avi .mov .mkv .webm .wav .mp3 .flac", (), "give a folder of its frames as images"),
    Kind("a compressed file", ".gz .bz2 .xz", tuple((0, magic) for magic in COMPRESSED), EXTRACT),
)
