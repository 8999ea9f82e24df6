"""Folders and .zip files of images, with labels from dataset.json or from the folders."""

import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ganfast.data.dataset import slug
from ganfast.data.images import half_width, halves, header, is_grey, naming, to_square, upright
from ganfast.data.labels import Companions, LabelFile, from_folders, without_labels
from ganfast.data.rows import Rows
from ganfast.errors import InputError

MAX_BYTES = 2**28  # of one image file; a zip member that claims more is not worth the memory


def ignored(name: str) -> bool:
    """Whether a path relative to the root is one that systems leave behind, or the labels."""
    parts = name.split("/")
    if any(p.startswith(".") or p == "__MACOSX" for p in parts):
        return True
    return parts[-1] in ("Thumbs.db", "desktop.ini", "dataset.json")


class ImageFiles(Rows):
    """Image files by their paths relative to a root, sorted. Subclasses set ``source`` and ``names``, and read."""

    source: str
    names: list[str]
    layout: str | None = None  # ab or ba: both sides of a pair lie in each picture

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The bytes of one file."""
        raise NotImplementedError

    def title(self, index: int) -> str:
        return self.names[index]

    def naming(self, index: int):
        """Turn whatever reading a file raises into an InputError that names it."""
        return naming(f"{self.source}: {self.names[index]}")

    def picture(self, index: int) -> Image.Image:
        """One file as an upright image."""
        return upright(BytesIO(self.read(index)))

    def side(self, index: int) -> int:
        with self.naming(index):
            image = self.picture(index)
            self._sides(image, 16, 1)  # the first good image, not the first good header
            width, height = image.size
            return min(half_width(width) if self.layout else width, height)

    def native_channels(self) -> int:
        """1 when up to 256 evenly spaced images are all grey, else 3."""
        for index in np.unique(np.linspace(0, len(self) - 1, 256).round().astype(int)):
            try:
                with self.naming(index), header(BytesIO(self.read(index))) as image:
                    if not is_grey(image):
                        return 3
            except InputError:
                continue  # decoding names it
        return 1

    def split(self, layout: str) -> None:
        self.layout, self.pictures = layout, ("images", "targets")

    def row(self, index: int, size: int, channels: int) -> tuple[np.ndarray, ...]:
        with self.naming(index):
            return self._sides(self.picture(index), size, channels)

    def _sides(self, image: Image.Image, size: int, channels: int) -> tuple[np.ndarray, ...]:
        sides = halves(image) if self.layout else (image,)
        return tuple(to_square(side, size, channels) for side in (sides[::-1] if self.layout == "ba" else sides))

    def _prepare(self, dataset_json: Callable[[], bytes] | None) -> None:
        """Check that there is something, and read the labels that dataset.json gives."""
        if not self.names:
            raise InputError(f"{self.source}: holds no images")
        self.labels, self.unreadable = None, ""
        if dataset_json is not None:
            try:
                with naming("dataset.json"):
                    self.labels = LabelFile(dataset_json())
            except InputError as error:
                self.unreadable = str(error)

    def companions(self, kept: np.ndarray) -> Companions:
        """Labels or attributes from dataset.json; where it says nothing of them, classes from first-level folders."""
        names = [self.names[i] for i in kept]
        if self.unreadable:
            return without_labels(self.unreadable)
        if self.labels is None:
            return from_folders(names)
        by_folder = from_folders(names) if self.labels.silent else Companions()
        return by_folder if by_folder.columns else self.labels.of(names)


class FolderRows(ImageFiles):
    """A folder of images, searched to every depth."""

    def __init__(self, path: Path):
        self.root, self.source, self.name = path, str(path), slug(path.resolve().name)
        self.names = sorted(n for n in _walk(path) if not ignored(n))
        labels = path / "dataset.json"
        self._prepare(labels.read_bytes if labels.exists() else None)

    def read(self, index: int) -> bytes:
        path = self.root / self.names[index]
        if not path.is_file():
            raise InputError("not a regular file")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path.stat().st_size} bytes are too many for one image")
        return path.read_bytes()


def _walk(root: Path) -> list[str]:
    """Paths of all files below root with forward slashes; links to folders are followed, each folder once."""
    found, seen = [], set()

    def unreadable(error: OSError):
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for folder, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [Path(folder, f).relative_to(root).as_posix() for f in files]
    return found


class ZipRows(ImageFiles):
    """A .zip of images, read in place and never extracted to disk."""

    def __init__(self, path: Path):
        self.source, self.name = str(path), slug(path.stem)
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise InputError(f"{path}: a damaged or truncated zip file ({error}); fetch or make it again") from error
        try:
            members = {m.filename.replace("\\", "/"): m for m in self.zip.infolist() if not m.is_dir()}
            self.names = sorted(n for n in members if not ignored(n))
            self.members = [members[n] for n in self.names]
            labels = members.get("dataset.json")
            self._prepare(None if labels is None else lambda: self.zip.read(labels))
        except InputError:
            self.close()
            raise

    def read(self, index: int) -> bytes:
        member = self.members[index]
        if member.file_size > MAX_BYTES:
            raise InputError(f"{member.file_size} bytes are too many for one image")
        return self.zip.read(member)  # checks the CRC

    def close(self) -> None:
        self.zip.close()
