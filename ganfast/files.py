"""Writing a file whole or not at all, and the folder of what can be made again."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


def cache_folder() -> Path:
    """Where what can be made again is kept: $GANFAST_CACHE, by default ~/.cache/ganfast."""
    folder = os.environ.get("GANFAST_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "ganfast"


@contextlib.contextmanager
def replacing(file: Path, durable: bool = True) -> Iterator[Path]:
    """``with replacing(file) as partial:`` what is written to ``partial`` becomes ``file``, all of it or nothing.

    Several threads and processes may do so at once: each has a partial file of its own. A ``durable`` file is on the
    disk afterwards, whatever happens to the power; waiting for that takes longer than writing a small picture.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
        if durable:
            flush(partial)
        os.replace(partial, file)
        if durable:
            flush(file.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """fsync a file or a directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
