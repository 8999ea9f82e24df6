"""Folders and .zip files of images, with labels from dataset.json or from the folders."""

import json
import os
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from ganfast.data.dataset import slug
from ganfast.data.images import decode, header, is_grey, naming
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

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The bytes of one file."""
        raise NotImplementedError

    def title(self, index: int) -> str:
        return self.names[index]

    def _naming(self, index: int):
        return naming(f"{self.source}: {self.names[index]}")

    def side(self, index: int) -> int:
        with self._naming(index):
            content = self.read(index)
            decode(BytesIO(content), 16, 1)  # the first good image, not the first good header
            return min(header(BytesIO(content)).size)

    def native_channels(self) -> int:
        """1 when up to 256 evenly spaced images are all grey, else 3."""
        for index in np.unique(np.linspace(0, len(self) - 1, 256).round().astype(int)):
            try:
                with self._naming(index), header(BytesIO(self.read(index))) as image:
                    if not is_grey(image):
                        return 3
            except InputError:
                continue  # decoding names it
        return 1

    def row(self, index: int, size: int, channels: int) -> np.ndarray:
        with self._naming(index):
            pixels = decode(BytesIO(self.read(index)), size, channels)
            if self.given is not None and self.names[index] not in self.given:
                raise InputError("has no label in dataset.json")
            return pixels

    def _prepare(self, dataset_json: bytes | None) -> None:
        """Check that there is something, and read the labels that dataset.json gives."""
        if not self.names:
            raise InputError(f"{self.source}: holds no images")
        self.given, self.unlabelled = None, False
        if dataset_json is not None:
            self.given = _read_labels(f"{self.source}: dataset.json", dataset_json)
            self.unlabelled = self.given is None

    def labels(self, kept: np.ndarray) -> np.ndarray | None:
        """From dataset.json; else the first-level folders, sorted, when there are two or more and hold every image."""
        names = [self.names[i] for i in kept]
        if self.given is not None:
            return np.array([self.given[n] for n in names], np.int64)
        folders = [n.split("/")[0] for n in names if "/" in n]
        classes = sorted(set(folders))
        if self.unlabelled or len(folders) < len(names) or len(classes) < 2:
            return None
        number = {folder: k for k, folder in enumerate(classes)}
        return np.array([number[f] for f in folders], np.int64)


def _read_labels(title: str, content: bytes) -> dict[str, int] | None:
    """{"labels": [[path, class], ...]} or {"labels": {path: class}}, or null for no labels."""
    try:
        labels = json.loads(content)["labels"]
        pairs = dict(labels or {})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f'{title}: needs {{"labels": [["path", 0], ...]}} or {{"labels": null}}') from error
    for path, label in pairs.items():
        if type(label) is not int or label < 0:
            raise InputError(f"{title}: the label of {path} is {label!r}; labels are whole numbers from 0")
    return {path.replace("\\", "/"): label for path, label in pairs.items()} if labels else None


class FolderRows(ImageFiles):
    """A folder of images, searched to every depth."""

    def __init__(self, path: Path):
        self.root, self.source, self.name = path, str(path), slug(path.resolve().name)
        self.names = sorted(n for n in _walk(path) if not ignored(n))
        labels = path / "dataset.json"
        self._prepare(labels.read_bytes() if labels.is_file() else None)

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
            with naming(f"{path}: dataset.json"):
                labels = self.zip.read(members["dataset.json"]) if "dataset.json" in members else None
            self._prepare(labels)
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
