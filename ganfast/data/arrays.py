"""Images that lie in NumPy arrays of any usual layout and type."""

import copy

import numpy as np
from PIL import Image

from ganfast.data.images import MIN_SIDE, check_proportions, half_width, narrow, to_square
from ganfast.data.labels import Companions
from ganfast.data.rows import Rows
from ganfast.errors import InputError

SLACK = 1e-3  # how far rounding may carry a float beyond its range


class ImageArray:
    """Images [N, H, W], [N, H, W, C] or [N, C, H, W] of uint8, bool, uint16 or floats in [0, 1] or [−1, 1].

    ``source`` names the array in errors. C may be any number; channels asked for convert between 1 and 3.
    """

    def __init__(self, source: str, array: np.ndarray):
        self.source, self.array = source, _as_nhwc(source, array)
        if 0 in array.shape:
            raise InputError(f"{source}: the array of shape {list(array.shape)} is empty")
        _, self.height, self.width, self.channels = self.array.shape
        if min(self.height, self.width) < MIN_SIDE:
            raise InputError(
                f"{source}: images of {self.width}×{self.height} pixels; both sides must be {MIN_SIDE} or more"
            )
        self.low = _low_end(source, array)

    def halves(self) -> tuple["ImageArray", "ImageArray"]:
        """The left and the right half of all images."""
        try:
            half = half_width(self.width)
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from error
        left, right = copy.copy(self), copy.copy(self)
        left.array, right.array = self.array[:, :, :half], self.array[:, :, self.width - half :]
        left.width = right.width = half
        return left, right

    def square(self, index: int, size: int, channels: int) -> np.ndarray:
        """One image as uint8 [size, size, channels]."""
        pixels = self._bytes(self.array[index])
        if self.channels == 1:
            return to_square(Image.fromarray(pixels[..., 0]), size, channels)
        if self.channels == 3:
            return to_square(Image.fromarray(pixels), size, channels)
        planes = [to_square(Image.fromarray(pixels[..., c]), size, 1) for c in range(self.channels)]
        return np.concatenate(planes, axis=2)

    def _bytes(self, pixels: np.ndarray) -> np.ndarray:
        kind = self.array.dtype.kind
        if kind == "b":
            return pixels.astype(np.uint8) * np.uint8(255)
        if kind == "f":
            unit = (pixels.astype(np.float64) - self.low) / (1 - self.low)
            return np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(pixels) if self.array.dtype == np.uint8 else narrow(pixels)

    def ready(self, size: int, channels: int) -> bool:
        """Whether the array is what ``square`` would make of it."""
        same = self.array.dtype == np.uint8 and self.array.shape[1:] == (size, size, channels)
        return same and self.array.flags.c_contiguous


class ArrayRows(Rows):
    """Rows of an array of images, and of one of targets if any: sides of the same proportions and convertible channels.

    ``beside`` holds the other columns.
    """

    def __init__(
        self, name: str, images: ImageArray, beside: Companions | None = None, targets: ImageArray | None = None
    ):
        self.name, self.beside = name, beside or Companions()
        self.sides = (images,)
        if targets is not None:
            self._add(targets)

    def _add(self, targets: ImageArray) -> None:
        images = self.sides[0]
        if len(targets.array) != len(images.array):
            raise InputError(f"{targets.source}: {len(targets.array)} targets for {len(images.array)} images")
        try:
            check_proportions((images.width, images.height), (targets.width, targets.height))
        except InputError as error:
            raise InputError(f"{targets.source}: {error}") from error
        if targets.channels != images.channels and not {targets.channels, images.channels} <= {1, 3}:
            raise InputError(
                f"{targets.source}: targets of {targets.channels} channels for images of {images.channels}"
            )
        self.sides, self.pictures = (images, targets), ("images", "targets")

    def split(self, layout: str) -> None:
        if len(self.sides) > 1:
            raise InputError(f"--layout {layout}: {self.sides[1].source} holds the targets; leave the option out")
        sides = self.sides[0].halves()
        self.sides = sides if layout == "ab" else sides[::-1]
        self.pictures = ("images", "targets")

    def __len__(self) -> int:
        return len(self.sides[0].array)

    def title(self, index: int) -> str:
        return str(index)

    def side(self, index: int) -> int:
        return min(self.sides[0].height, self.sides[0].width)

    def native_channels(self) -> int:
        return max(side.channels for side in self.sides)

    def check_channels(self, channels: int | None) -> None:
        for side in self.sides:
            if channels not in (None, side.channels) and side.channels not in (1, 3):
                raise InputError(
                    f"--channels {channels}: {side.source} has {side.channels} channels; leave the option out to "
                    "keep them"
                )

    def row(self, index: int, size: int, channels: int) -> tuple[np.ndarray, ...]:
        return tuple(side.square(index, size, channels) for side in self.sides)

    def companions(self, kept: np.ndarray) -> Companions:
        return self.beside.take(kept)

    def ready(self, size: int, channels: int) -> tuple[np.ndarray, ...] | None:
        return tuple(s.array for s in self.sides) if all(s.ready(size, channels) for s in self.sides) else None


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
