"""A source of images before it is decoded, and its decoding by a pool of threads, in order, in bounded memory."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ganfast.data.dataset import Dataset
from ganfast.data.labels import Companions
from ganfast.errors import InputError

SIZES = (16, 32, 64, 128, 256)


class Rows:
    """N images, or pairs of images, that are decoded one by one; ``len`` is N. Subclasses say how.

    ``title(i)`` is the file's name for a person; ``row`` raises InputError for a file that cannot be used.
    """

    name: str  # slug of the data set
    default_size: int | None = None  # None: from the first good image
    pictures: tuple[str, ...] = ("images",)
    """the columns that a row has a picture of: images, and targets of pairs"""

    def __len__(self) -> int:
        raise NotImplementedError

    def title(self, index: int) -> str:
        raise NotImplementedError

    def side(self, index: int) -> int:
        """The shorter side of an image in pixels; InputError where it cannot be decoded."""
        raise NotImplementedError

    def native_channels(self) -> int:
        """The channels of the data set when nobody asks for others."""
        raise NotImplementedError

    def check_channels(self, channels: int | None) -> None:
        """Refuse channels that the images cannot be turned into."""

    def split(self, layout: str) -> None:
        """Take the halves of each picture for a pair: images and targets from left to right (ab) or reversed (ba)."""
        raise NotImplementedError

    def row(self, index: int, size: int, channels: int) -> tuple[np.ndarray, ...]:
        """One uint8 [size, size, channels] for each of ``pictures``."""
        raise NotImplementedError

    def companions(self, kept: np.ndarray) -> Companions:
        """The other columns of the rows at the indices ``kept``."""
        raise NotImplementedError

    def ready(self, size: int, channels: int) -> tuple[np.ndarray, ...] | None:
        """All rows as uint8 arrays [N, size, size, channels] where they already lie so, else None."""
        return None

    def close(self) -> None:
        """Let go of open files."""


def check_size(size: int | None) -> None:
    """Refuse a size that is not a power of two from 16 to 256, and name the nearest ones."""
    if size is None or size in SIZES:
        return
    near = [s for s in SIZES if s < size][-1:] + [s for s in SIZES if s > size][:1]
    raise InputError(f"--size {size}: a size is a power of two from 16 to 256; use {' or '.join(map(str, near))}")


def check_channels(channels: int | None) -> None:
    """Refuse channels other than 1 (grey) and 3 (RGB)."""
    if channels not in (None, 1, 3):
        raise InputError(f"--channels {channels}: use 1 (grey) or 3 (RGB)")


def settle(rows: Rows, size: int | None, channels: int | None, skip_bad: bool) -> tuple[int, int]:
    """The size and channels to decode to: those asked for, else the nearest power of two and the source's own."""
    rows.check_channels(channels)
    size = size or rows.default_size
    if size is None:
        side = _first_side(rows, skip_bad)
        size = min(SIZES, key=lambda s: abs(np.log2(s / side)))
    return size, channels or rows.native_channels()


def _first_side(rows: Rows, skip_bad: bool) -> int:
    for index in range(len(rows)):
        try:
            return rows.side(index)
        except InputError as error:
            if not skip_bad:
                raise _advised(error) from error
    raise _none_left(rows)


def _advised(error: InputError) -> InputError:
    return InputError(f"{error}; remove or mend it, or give --skip-bad, which skips and counts such files")


def _none_left(rows: Rows) -> InputError:
    return InputError(f"{rows.name}: none of its {len(rows)} files is an image that can be used")


def decoded(
    rows: Rows, size: int, channels: int, skip_bad: bool, progress: bool
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """(index, row) of every good row in order; a bad one raises, or is passed over with ``skip_bad``.

    Memory stays bounded: two chunks a worker of about 1 MiB each are decoded ahead of the reader.
    """
    row_bytes = size * size * channels * len(rows.pictures)
    chunk = min(256, max(1, 2**20 // row_bytes))
    starts = deque(range(0, len(rows), chunk))
    # tiny rows are mostly Python: threads would wait for its lock (MNIST takes 4 s with two threads, 2.3 s with one)
    workers = 1 if row_bytes < 2**13 else min(32, os.cpu_count() or 1)

    def work(start: int) -> list[tuple[np.ndarray, ...] | InputError]:
        return [_attempt(rows, i, size, channels) for i in range(start, min(start + chunk, len(rows)))]

    good = 0
    pool = ThreadPoolExecutor(workers)
    bar = tqdm(total=len(rows), desc=rows.name, unit="img", disable=None if progress else True, leave=False)
    try:
        running = deque((s, pool.submit(work, s)) for s in _take(starts, 2 * workers))
        while running:
            start, future = running.popleft()
            results = future.result()
            running.extend((s, pool.submit(work, s)) for s in _take(starts, 1))
            for index, result in enumerate(results, start):
                if not isinstance(result, InputError):
                    good += 1
                    yield index, result
                elif not skip_bad:
                    raise _advised(result) from result
            bar.update(len(results))
    finally:
        bar.close()
        pool.shutdown(wait=True, cancel_futures=True)
    if not good:
        raise _none_left(rows)


def _take(queue: deque, count: int) -> list:
    return [queue.popleft() for _ in range(min(count, len(queue)))]


def _attempt(rows: Rows, index: int, size: int, channels: int) -> tuple[np.ndarray, ...] | InputError:
    try:
        return rows.row(index, size, channels)
    except InputError as error:
        return error


def missing(rows: Rows, kept: np.ndarray) -> tuple[str, ...]:
    """Titles of the files that are not among ``kept``."""
    if len(kept) == len(rows):
        return ()
    return tuple(rows.title(i) for i in np.setdiff1d(np.arange(len(rows)), kept))


def in_ram(rows: Rows, size: int, channels: int, skip_bad: bool, progress: bool) -> Dataset:
    """Decode everything into uint8 tensors; refuse what would take over half of the memory that is free."""
    arrays = rows.ready(size, channels)
    kept = np.arange(len(rows))
    if arrays is None:
        shape = (len(rows), size, size, channels)
        check_ram(rows.name, int(np.prod(shape, dtype=object)) * len(rows.pictures))
        arrays = [np.empty(shape, np.uint8) for _ in rows.pictures]
        kept = []
        for index, row in decoded(rows, size, channels, skip_bad, progress):
            for array, picture in zip(arrays, row):
                array[len(kept)] = picture
            kept.append(index)
        arrays, kept = [array[: len(kept)] for array in arrays], np.array(kept)
    beside = rows.companions(kept)
    pictures = {column: torch.from_numpy(array) for column, array in zip(rows.pictures, arrays)}
    return Dataset(
        rows.name,
        names=beside.names,
        skipped=missing(rows, kept),
        absent=beside.absent,
        **pictures,
        **beside.tensors(),
    )


def check_ram(what: str, size: int) -> None:
    """Raise InputError when ``size`` bytes are more than half of the memory that is free."""
    free = available_ram()
    if free is not None and size > free / 2:
        raise InputError(
            f"{what}: decoded it takes {size / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of memory are free; "
            "pack it first with `ganfast data pack SRC DEST.safetensors` and give DEST.safetensors"
        )


def available_ram() -> int | None:
    """Bytes of memory that are free, within the limit of a container; None where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        stat = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
        free = min(free, int(limit.read_text()) - int(used.read_text()) + int(stat["inactive_file"]))
    return free
