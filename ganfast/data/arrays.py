"""NumPy arrays in .npy and .npz files: images of any usual layout and type, or points."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ganfast.data.dataset import Dataset, slug
from ganfast.data.images import MIN_SIDE, narrow, to_square
from ganfast.data.rows import Rows, check_ram
from ganfast.errors import InputError

IMAGE_KEYS = ("images", "x", "x_train", "arr_0")
LABEL_KEYS = ("labels", "y", "y_train")
SLACK = 1e-3  # how far rounding may carry a float beyond its range


class ArrayRows(Rows):
    """Images that lie in an array [N, H, W, C] of uint8, bool, uint16 or floats in [0, 1] or [−1, 1].

    ``source`` names the array in errors. C may be any number; channels asked for convert between 1 and 3.
    """

    def __init__(self, name: str, source: str, array: np.ndarray, labels: np.ndarray | None = None):
        self.name, self.source, self.array, self.given = name, source, array, labels
        if 0 in array.shape:
            raise InputError(f"{source}: the array of shape {list(array.shape)} is empty")
        if min(array.shape[1:3]) < MIN_SIDE:
            raise InputError(
                f"{source}: images of {array.shape[2]}×{array.shape[1]} pixels; both sides must be {MIN_SIDE} or more"
            )
        self.low = _low_end(source, array)

    def __len__(self) -> int:
        return len(self.array)

    def title(self, index: int) -> str:
        return str(index)

    def side(self, index: int) -> int:
        return min(self.array.shape[1:3])

    def native_channels(self) -> int:
        return self.array.shape[3]

    def check_channels(self, channels: int | None) -> None:
        own = self.native_channels()
        if channels not in (None, own) and own not in (1, 3):
            raise InputError(
                f"--channels {channels}: {self.source} has {own} channels; leave the option out to keep them"
            )

    def row(self, index: int, size: int, channels: int) -> np.ndarray:
        pixels = self._bytes(self.array[index])
        own = pixels.shape[2]
        if own == 1:
            return to_square(Image.fromarray(pixels[..., 0]), size, channels)
        if own == 3:
            return to_square(Image.fromarray(pixels), size, channels)
        return np.concatenate([to_square(Image.fromarray(pixels[..., c]), size, 1) for c in range(own)], axis=2)

    def _bytes(self, pixels: np.ndarray) -> np.ndarray:
        kind = self.array.dtype.kind
        if kind == "b":
            return pixels.astype(np.uint8) * np.uint8(255)
        if kind == "f":
            unit = (pixels.astype(np.float64) - self.low) / (1 - self.low)
            return np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(pixels) if self.array.dtype == np.uint8 else narrow(pixels)

    def labels(self, kept: np.ndarray) -> np.ndarray | None:
        return None if self.given is None else self.given[kept]

    def ready(self, size: int, channels: int) -> np.ndarray | None:
        same = self.array.dtype == np.uint8 and self.array.shape[1:] == (size, size, channels)
        return self.array if same and self.array.flags.c_contiguous else None


def _low_end(source: str, array: np.ndarray) -> float:
    """0 or −1, the low end of the range of floats; 0 for integers. Refuses other types and ranges."""
    if array.dtype.kind == "b" or array.dtype in (np.uint8, np.dtype("<u2"), np.dtype(">u2")):
        return 0.0
    if array.dtype.kind != "f":
        raise InputError(f"{source}: images of type {array.dtype}; use uint8, uint16, bool or floats")
    low, high = _range(source, array)
    if low < -1 - SLACK or high > 1 + SLACK:
        raise InputError(
            f"{source}: values from {low:.6g} to {high:.6g}; scale them to [0, 1] or [-1, 1], or use uint8"
        )
    return 0.0 if low >= -SLACK else -1.0


def _range(source: str, array: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value, read in stretches of 64 MiB; NaN and infinity are refused."""
    step = max(1, 2**26 // max(1, array[:1].nbytes))
    low, high = np.inf, -np.inf
    for start in range(0, len(array), step):
        part = array[start : start + step]
        if not np.isfinite(part).all():
            raise InputError(f"{source}: NaN or infinity among samples {start} to {start + len(part) - 1}; remove them")
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    return low, high


def open_array(path: Path) -> Rows | Dataset:
    """A .npy or .npz file: Rows for images, a Dataset for points (floats [N, D])."""
    array, labels, source = _load(path)
    if array.ndim == 2 and array.dtype.kind == "f" and array.size:
        _range(source, array)
        points = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        labels = None if labels is None else torch.from_numpy(labels)
        return Dataset(slug(path.stem), points=points, labels=labels)
    return ArrayRows(slug(path.stem), source, _as_nhwc(source, array), labels)


def _as_nhwc(source: str, array: np.ndarray) -> np.ndarray:
    """[N, H, W], [N, H, W, C] or [N, C, H, W] → [N, H, W, C].

    The last axis is C when it is 1 or 3, else the second when it is 1 or 3, else the one that is shorter than the
    other two.
    """
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4:
        _, first, middle, last = array.shape
        if last in (1, 3) or (first not in (1, 3) and last < min(first, middle)):
            return array
        if first in (1, 3) or first < min(middle, last):
            return array.transpose(0, 2, 3, 1)
    raise InputError(
        f"{source}: an array of {array.dtype} and shape {list(array.shape)}; images are [N, H, W], [N, H, W, C] or "
        "[N, C, H, W], points are floats [N, D]"
    )


def _load(path: Path) -> tuple[np.ndarray, np.ndarray | None, str]:
    """The samples, the labels and the words for the samples in errors. Never unpickles."""
    try:
        found = np.load(path, mmap_mode="c" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found, None, str(path)
        with found:
            check_ram(str(path), sum(member.file_size for member in found.zip.infolist()))
            key = _image_key(path, found)
            labels = next((k for k in LABEL_KEYS if k in found.files and k != key), None)
            array = found[key]
            if labels is not None:
                labels = check_labels(f"{path}: {labels}", found[labels], array.shape[0] if array.ndim else 0)
            return array, labels, f"{path}: {key}"
    except InputError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(f"{path}: a damaged array file, or one that holds Python objects ({error})") from error


def _image_key(path: Path, found: np.lib.npyio.NpzFile) -> str:
    """The usual name, else the only array with three axes or more, else the only one with two."""
    for key in IMAGE_KEYS:
        if key in found.files:
            return key
    ranks = {k: found[k].ndim for k in found.files}
    for usable in ([k for k, n in ranks.items() if n >= 3], [k for k, n in ranks.items() if n == 2]):
        if len(usable) == 1:
            return usable[0]
    raise InputError(f"{path}: holds the arrays {', '.join(ranks) or 'none'}; name the samples one of {IMAGE_KEYS}")


def check_labels(source: str, labels: np.ndarray, count: int) -> np.ndarray:
    """int64 [N] from whole numbers [N] or [N, 1]; InputError for other shapes, types, counts and negative ones."""
    if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
        raise InputError(
            f"{source}: labels of {labels.dtype} and shape {list(labels.shape)}; {count} samples need whole numbers "
            f"of shape [{count}]"
        )
    labels = labels.reshape(count).astype(np.int64)
    if count and labels.min() < 0:
        raise InputError(f"{source}: the label {labels.min()} is negative; labels count from 0")
    return labels
