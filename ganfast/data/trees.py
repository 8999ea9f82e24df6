"""The files below a source by their paths: a folder, a .zip, a .tar or a single file."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import BinaryIO

from ganfast.data.dataset import slug
from ganfast.data.side_files import kind_of
from ganfast.errors import InputError

MAX_BYTES = 2**28  # of one file that is read whole; a zip member that claims more is not worth the memory
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


class Tree:
    """Files by their paths with forward slashes, sorted. ``source`` names it in errors, ``name`` is the data set's."""

    source: str
    name: str
    names: list[str]
    inside = ""
    """the folder that the person named, with a slash at its end; "" for all of it"""

    def enter(self, inside: str) -> None:
        """Keep the files of one folder, or one file, and what lies right in the folders above: tables of labels."""
        above = ("", *(inside[: end + 1] for end, letter in enumerate(inside) if letter == "/"))
        own = [name for name in self.names if name == inside or name.startswith(f"{inside}/")]
        if not own:
            here = sorted(
                {name[len(above[-1]) :].partition("/")[0] for name in self.names if name.startswith(above[-1])}
            )
            listed = ", ".join(here[:12]) + ", …" * (len(here) > 12) or "nothing"
            raise InputError(f"{self.source}: has no {inside}; {above[-1] or 'it'} holds {listed}")
        self.inside = above[-1] if own == [inside] else f"{inside}/"
        tables = [name for name in self.names if name[: name.rfind("/") + 1] in above and kind_of(name) == "tables"]
        self.names = sorted({*own, *tables})
        self.name = slug(PurePosixPath(inside).stem if own == [inside] else PurePosixPath(inside).name)

    def open(self, name: str) -> BinaryIO:
        """One file for reading, seekable."""
        raise NotImplementedError

    def size(self, name: str) -> int:
        """Bytes of one file."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """All of one file; InputError where it is too large for a picture or a table."""
        if self.size(name) > MAX_BYTES:
            raise InputError(f"{self.size(name)} bytes are too many for one file")
        with self.open(name) as file:
            return file.read()

    def path(self, name: str) -> Path | None:
        """Where a file lies on the disk; None inside an archive."""
        return None

    def close(self) -> None:
        """Let go of open files."""


class Folder(Tree):
    """A folder, searched to every depth; of a folder's ``only`` files where they are named."""

    def __init__(self, root: Path, only: Sequence[str] | None = None):
        self.root, self.source, self.name = root, str(root), slug(root.resolve().name)
        self.names = sorted(_walk(root) if only is None else only)

    def path(self, name: str) -> Path:
        return self.root / name

    def open(self, name: str) -> BinaryIO:
        if not self.path(name).is_file():
            raise InputError("not a regular file")
        return open(self.path(name), "rb")

    def size(self, name: str) -> int:
        return self.path(name).stat().st_size


class File(Folder):
    """A single file."""

    def __init__(self, path: Path):
        super().__init__(path.parent, [path.name])
        self.name = slug(path.stem)


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


class Zip(Tree):
    """A .zip, read in place and never extracted to disk."""

    def __init__(self, path: Path):
        self.source, self.name = str(path), slug(path.stem)
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise InputError(f"{path}: a damaged or truncated zip file ({error}); fetch or make it again") from error
        self.members = {_name_in_zip(m): m for m in self.zip.infolist() if not m.is_dir()}
        self.names = sorted(self.members)

    def open(self, name: str) -> BinaryIO:
        return self.zip.open(self.members[name])

    def size(self, name: str) -> int:
        return self.members[name].file_size

    def close(self) -> None:
        self.zip.close()


def _name_in_zip(member: zipfile.ZipInfo) -> str:
    """The path of a member; names without the UTF-8 flag are UTF-8 all the same where they can be, else CP437."""
    name = member.filename
    if not member.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


class Tar(Tree):
    """A .tar, read in place; of a compressed one the content lies in a temporary file while it is open."""

    def __init__(self, path: Path):
        self.source, self.name = str(path), slug(path.name.partition(".tar")[0])
        self.file = open(path, "rb")  # noqa: SIM115, closed by close()
        try:
            self._unpack()
            with tarfile.open(fileobj=self.file, mode="r:") as tar:
                members = [m for m in tar.getmembers() if m.isreg() and not m.issparse()]
        except (tarfile.TarError, OSError, EOFError, ValueError, lzma.LZMAError) as error:
            self.close()
            raise InputError(f"{path}: a damaged or truncated tar file ({error}); fetch or make it again") from error
        self.members = {m.name.removeprefix("./").lstrip("/"): (m.offset_data, m.size) for m in members}
        self.names = sorted(self.members)
        self.end, self.lock = os.fstat(self.file.fileno()).st_size, threading.Lock()

    def _unpack(self) -> None:
        opener = opener_of(self.file)
        if opener is not None:
            packed, self.file = self.file, TemporaryFile()  # noqa: SIM115
            with packed, opener(packed) as content:
                shutil.copyfileobj(content, self.file, 2**20)
            self.file.seek(0)

    def open(self, name: str) -> BinaryIO:
        start, size = self.members[name]
        if start + size > self.end:
            raise InputError("the archive ends within this file")
        with self.lock:
            self.file.seek(start)
            return io.BytesIO(self.file.read(size))

    def size(self, name: str) -> int:
        return self.members[name][1]

    def close(self) -> None:
        self.file.close()


def split_path(path: Path) -> tuple[Path, str]:
    """(what lies on the disk, the path inside it) of ``pictures.zip/cats``; (path, "") of any other path."""
    for place in path.parents:
        if place.is_file():
            return place, path.relative_to(place).as_posix()
        if place.exists():
            break
    return path, ""


def opener_of(file: BinaryIO):
    """What opens the content of a compressed file (gzip, bzip2, xz); None where it is none. The position is kept."""
    position = file.tell()
    start = file.read(6)
    file.seek(position)
    return next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
