"""Images that lie in NumPy arrays of any usual layout and type."""

import copy
import dataclasses

import numpy as np
from PIL import Image

from ganfast.data.images import MIN_SIDE, Frame, check_proportions, half_width, narrow, to_frame
from ganfast.data.labels import Companions
from ganfast.data.rows import Rows, Survey
from ganfast.errors import InputError

SLACK = 1e-3  # how far rounding may carry a float beyond its range


class ImageArray:
    """Images [N, H, W], [N, H, W, C] or [N, C, H, W] of bool, integers from 0, or floats in [0, 1] or [−1, 1].

    Integers wider than uint8 have 16 bits, except that wider ones than 16 bits and whole floats have 8 where they are
    255 at most. ``source`` names the array in errors. C may be any number; channels asked for convert between 1 and 3.
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
        self.low, self.high = _ends(source, array)

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

    def transposed(self) -> "ImageArray":
        """Rows and columns swapped."""
        turned = copy.copy(self)
        turned.array, turned.height, turned.width = self.array.transpose(0, 2, 1, 3), self.width, self.height
        return turned

    def picture(self, index: int, frame: Frame) -> np.ndarray:
        """One image as uint8 [height, width, channels]."""
        pixels = self._bytes(self.array[index])
        if self.channels == 1:
            return to_frame(Image.fromarray(pixels[..., 0]), frame)
        if self.channels == 3:
            return to_frame(Image.fromarray(pixels), frame)
        grey = dataclasses.replace(frame, channels=1)
        planes = [to_frame(Image.fromarray(pixels[..., c]), grey) for c in range(self.channels)]
        return np.concatenate(planes, axis=2)

    def _bytes(self, pixels: np.ndarray) -> np.ndarray:
        if self.high == 255:
            return np.ascontiguousarray(pixels, np.uint8)
        if self.high == 65535:
            return narrow(pixels)
        unit = (pixels.astype(np.float64) - self.low) / (self.high - self.low)
        return np.rint(unit.clip(0, 1) * 255).astype(np.uint8)

    def ready(self, frame: Frame) -> bool:
        """Whether the array is what ``picture`` would make of it."""
        same = self.array.dtype == np.uint8 and self.array.shape[1:] == frame.shape
        return same and self.array.flags.c_contiguous


class ArrayRows(Rows):
    """Rows of an array of images, and of one of targets if any: sides of the same proportions and convertible channels.

    ``beside`` holds the other columns.
    """

    def __init__(
        self, name: str, images: ImageArray, beside: Companions | None = None, targets: ImageArray | None = None
    ):
        self.name, self.beside, self.notes = name, beside or Companions(), []
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

    def halve(self, layout: str) -> None:
        if len(self.sides) > 1:
            raise InputError(f"--layout {layout}: {self.sides[1].source} holds the targets; leave the option out")
        sides = self.sides[0].halves()
        self.sides = sides if layout == "ab" else sides[::-1]
        self.pictures = ("images", "targets")

    def __len__(self) -> int:
        return len(self.sides[0].array)

    def title(self, index: int) -> str:
        return str(index)

    def survey(self) -> Survey:
        return Survey([(self.sides[0].width, self.sides[0].height)], max(side.channels for side in self.sides))

    def transpose(self) -> None:
        self.sides = tuple(side.transposed() for side in self.sides)

    def check_channels(self, channels: int | None) -> None:
        for side in self.sides:
            if channels not in (None, side.channels) and side.channels not in (1, 3):
                raise InputError(
                    f"--channels {channels}: {side.source} has {side.channels} channels; leave the option out to "
                    "keep them"
                )

    def row(self, index: int, frame: Frame) -> tuple[np.ndarray, ...]:
        return tuple(side.picture(index, frame) for side in self.sides)

    def companions(self, kept: np.ndarray) -> Companions:
        return self.beside.take(kept)

    def ready(self, frame: Frame) -> tuple[np.ndarray, ...] | None:
        return tuple(s.array for s in self.sides) if all(s.ready(frame) for s in self.sides) else None


def _ends(source: str, array: np.ndarray) -> tuple[int, int]:
    """What black and white are: (0, 255), (0, 65535), (0, 1) or (−1, 1). Refuses other types and ranges."""
    kind, width = array.dtype.kind, array.dtype.itemsize
    if kind not in "biuf":
        raise InputError(f"{source}: images of type {array.dtype}; use uint8, uint16, bool or floats")
    if kind == "b" or (kind == "u" and width <= 2):
        return 0, 1 if kind == "b" else 2 ** (8 * width) - 1
    low, high, whole = _range(source, array)
    if kind == "f" and low >= -1 - SLACK and high <= 1 + SLACK:
        return 0 if low >= -SLACK else -1, 1
    if whole and low >= 0 and high <= (255 if kind == "f" else 65535):
        return 0, 255 if high <= 255 else 65535
    raise InputError(f"{source}: values from {low:.6g} to {high:.6g}; scale them to [0, 1] or [-1, 1], or use uint8")


def _range(source: str, array: np.ndarray) -> tuple[float, float, bool]:
    """Smallest and largest value and whether all are whole, in stretches of 64 MiB; NaN and infinity are refused."""
    step = max(1, 2**26 // max(1, array[:1].nbytes))
    low, high, whole = np.inf, -np.inf, True
    for start in range(0, len(array), step):
        part = array[start : start + step]
        if not np.isfinite(part).all():
            raise InputError(f"{source}: NaN or infinity among samples {start} to {start + len(part) - 1}; remove them")
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        whole = whole and bool((part == np.rint(part)).all())
    return low, high, whole


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
