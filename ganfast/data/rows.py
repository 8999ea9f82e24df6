"""A source of images before it is decoded, and its decoding by a pool of threads, in order, in bounded memory."""

import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ganfast.data.dataset import Dataset
from ganfast.data.images import Frame
from ganfast.data.labels import Companions
from ganfast.data.options import SIZES, DataOptions, parse_load_size, parse_size, size_word
from ganfast.errors import InputError

DARK = 16  # images without a value of at least this are nearly black


@dataclass
class Survey:
    """What the headers of some images say: (width, height) of each, and the channels that suit all."""

    sizes: list[tuple[int, int]]
    channels: int


class Rows:
    """N images, or pairs of images, that are decoded one by one; ``len`` is N. Subclasses say how.

    ``title(i)`` is the file's name for a person; ``row`` raises InputError for a file that cannot be used.
    """

    name: str  # slug of the data set
    notes: list[str]
    """sentences on what was done that a person would want to know"""
    default_size: int | None = None  # None: from the images
    reshaped = False  # whether --shape made images of flat rows
    pictures: tuple[str, ...] = ("images",)
    """the columns that a row has a picture of: images, and targets or maps of pairs"""

    def __len__(self) -> int:
        raise NotImplementedError

    def title(self, index: int) -> str:
        raise NotImplementedError

    def survey(self) -> Survey:
        """Sizes and channels of some images, evenly spaced; those that cannot be read are passed over."""
        raise NotImplementedError

    def check_channels(self, channels: int | None) -> None:
        """Refuse channels that the images cannot be turned into."""

    def halve(self, layout: str) -> None:
        """Take the halves of each picture for a pair: images and targets from left to right (ab) or reversed (ba)."""
        raise NotImplementedError

    def as_maps(self) -> None:
        """Take the pictures for label maps, of pairs the partners."""
        raise InputError(f"{self.name}: label maps are palette or grey pictures in files; give these")

    def transpose(self) -> None:
        """Swap rows and columns of every image."""
        raise NotImplementedError

    def row(self, index: int, frame: Frame) -> tuple[np.ndarray, ...]:
        """One uint8 [height, width, channels] for each of ``pictures``."""
        raise NotImplementedError

    def companions(self, kept: np.ndarray) -> Companions:
        """The other columns of the rows at the indices ``kept``."""
        raise NotImplementedError

    def ready(self, frame: Frame) -> tuple[np.ndarray, ...] | None:
        """All rows as uint8 arrays [N, height, width, channels] where they already lie so, else None."""
        return None

    def close(self) -> None:
        """Let go of open files."""


def settle(rows: Rows, options: DataOptions) -> Frame:
    """What to decode to: the size and channels asked for, else the size that most images allow and their channels."""
    rows.check_channels(options.channels)
    size = parse_size(options.size or rows.default_size)
    size = parse_load_size(options.load_size, size) or size
    survey = rows.survey()
    if size is None:
        size = _usual_size(rows, survey.sizes)
    if options.fit == "crop":
        rows.notes += _on_cropping(survey.sizes, *size)
    return Frame(*size, options.channels or survey.channels, options.fit)


def _usual_size(rows: Rows, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The power of two nearest to the median of the shorter sides; a note where other images suggest another."""
    if not sizes:
        return SIZES[0], SIZES[0]  # decoding says what is wrong with each
    sides = sorted(map(min, sizes))
    nearest = [min(SIZES, key=lambda s: abs(np.log2(s / side))) for side in sides]
    size = nearest[(len(nearest) - 1) // 2]
    if len(set(nearest)) > 1:
        between = f"between {sides[0]} and {sides[-1]} pixels"
        rows.notes.append(f"size {size}, which suits most of the images (shorter sides {between}; --size for another)")
    return size, size


def _on_cropping(sizes: list[tuple[int, int]], height: int, width: int) -> list[str]:
    """A note where most images lose more than a tenth of a side."""
    aspects = [w * height / (h * width) for w, h in sizes]  # 1: the frame's own
    if 2 * sum(max(aspect, 1 / aspect) > 1.1 for aspect in aspects) <= len(aspects):
        return []
    w, h = sizes[(len(sizes) - 1) // 2]
    return [
        f"images such as {w}×{h} are cropped to their centre (--fit pad or stretch keeps all of them, "
        f"--size {_rectangle(w, h, min(height, width))} is nearer to their proportions)"
    ]


def _rectangle(width: int, height: int, short: int) -> str:
    """The --size beside the shorter side ``short`` whose proportions are nearest to width : height."""
    long = min(max(round(4 * max(width, height) / min(width, height)), 4), 16) * short // 4
    return size_word(*((short, long) if width > height else (long, short)))


def advised(error: InputError) -> InputError:
    return InputError(f"{error}; remove or mend it, or give --skip-bad, which skips and counts such files")


def none_left(rows: Rows) -> InputError:
    return InputError(f"{rows.name}: none of its {len(rows)} files is an image that can be used")


def decoded(rows: Rows, frame: Frame, skip_bad: bool, progress: bool) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """(index, row) of every good row in order; a bad one raises, or is passed over with ``skip_bad``.

    Memory stays bounded: two chunks a worker of about 1 MiB each are decoded ahead of the reader.
    """
    row_bytes = math.prod(frame.shape) * len(rows.pictures)
    chunk = min(256, max(1, 2**20 // row_bytes))
    starts = deque(range(0, len(rows), chunk))
    # tiny rows are mostly Python: threads would wait for its lock (MNIST takes 4 s with two threads, 2.3 s with one)
    workers = 1 if row_bytes < 2**13 else min(32, os.cpu_count() or 1)

    def work(start: int) -> list[tuple[np.ndarray, ...] | InputError]:
        return [_attempt(rows, i, frame) for i in range(start, min(start + chunk, len(rows)))]

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
                    raise advised(result) from result
            bar.update(len(results))
    finally:
        bar.close()
        pool.shutdown(wait=True, cancel_futures=True)
    if not good:
        raise none_left(rows)


def _take(queue: deque, count: int) -> list:
    return [queue.popleft() for _ in range(min(count, len(queue)))]


def _attempt(rows: Rows, index: int, frame: Frame) -> tuple[np.ndarray, ...] | InputError:
    try:
        return rows.row(index, frame)
    except InputError as error:
        return error


def missing(rows: Rows, kept: np.ndarray) -> tuple[str, ...]:
    """Titles of the files that are not among ``kept``."""
    if len(kept) == len(rows):
        return ()
    return tuple(rows.title(i) for i in np.setdiff1d(np.arange(len(rows)), kept))


def in_ram(rows: Rows, frame: Frame, skip_bad: bool, progress: bool) -> tuple[Dataset, np.ndarray]:
    """(everything decoded into uint8 tensors, the indices kept); refuses what takes over half of the free memory."""
    arrays = rows.ready(frame)
    kept = np.arange(len(rows))
    if arrays is None:
        shapes = [(len(rows), *frame.shape_of(column)) for column in rows.pictures]
        check_ram(rows.name, sum(math.prod(shape) for shape in shapes))
        arrays = [np.empty(shape, np.uint8) for shape in shapes]
        kept = []
        for index, row in decoded(rows, frame, skip_bad, progress):
            for array, picture in zip(arrays, row):
                array[len(kept)] = picture
            kept.append(index)
        arrays, kept = [array[: len(kept)] for array in arrays], np.array(kept)
    beside = rows.companions(kept)
    pictures = {column: torch.from_numpy(array) for column, array in zip(rows.pictures, arrays)}
    data = Dataset(
        rows.name,
        names=beside.names,
        skipped=missing(rows, kept),
        absent=beside.absent,
        **pictures,
        **beside.tensors(),
    )
    return data, kept


def on_absent(data: Dataset) -> list[str]:
    """Notes on the columns that a source seemed to have."""
    absent = {name: why for name, why in data.absent.items() if name != "labels" or "attributes" not in data.columns}
    if absent.get("attributes") == absent.get("labels"):
        absent.pop("attributes", None)  # labels that cannot be used are neither
    return [f"without {name}: {why}" for name, why in absent.items()]


def on_dark(data: Dataset) -> list[str]:
    """Notes on images that are nearly black."""
    notes = []
    for column, values in data.columns.items():
        if column in ("images", "targets") and len(values):
            rows = torch.linspace(0, len(values) - 1, min(len(values), 1024), dtype=torch.float64).round().long()
            highest = int(values[rows].max())
            if highest < DARK:
                notes.append(
                    f"the values of {column} are 0 to {highest} of 255, which train as black: label maps, masks, or 16 "
                    "bits that are not full? Give bool, or scale them to 0 … 255"
                )
    return notes


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
