"""How a source is read: the options that opening, packing, training and evaluating share."""

from dataclasses import dataclass, fields
from typing import Literal

from ganfast.errors import InputError, check_choices

SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How the data is read."""

    size: int | str | None = None
    """pixels a side: 16, 32, 64, 128 or 256, or width x height as 128x64; by default what suits most of the images"""
    load_size: int | str | None = None
    """read pictures at this size, as 72 for --size 64, and train on crops of --size at random places"""
    channels: int | None = None
    """1 for grey, 3 for RGB; by default what the data is"""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """pictures of other proportions: crop to the centre, pad with white, or stretch"""
    split: str | None = None
    """the part of a data set that has several: train, val, test or another; by default train"""
    layout: Literal["ab", "ba"] | None = None
    """pictures hold pairs side by side: ab has the image on the left and its target on the right"""
    maps: bool = False
    """pictures are label maps, whose values are classes; of pairs the partners; recipes that need them do so anyway"""
    shape: str | None = None
    """what each row of a flat array is: 28x28 (height x width), 32x32x3 or 3x32x32"""
    transpose: bool = False
    """swap rows and columns of every image, for arrays that are stored column by column"""
    attributes: str | None = None
    """fields of a table beside the images, as hairColor,beard,age, that are the attributes; by default all numbers"""
    skip_bad: bool = False
    """skip files that cannot be decoded, and count them"""
    skip_unlabelled: bool = False
    """skip images without a label where others have one, and count them"""

    def __post_init__(self):
        check_choices(self)
        parse_load_size(self.load_size, parse_size(self.size))
        if self.channels not in (None, 1, 3):
            raise InputError(f"--channels {self.channels}: use 1 (grey) or 3 (RGB)")


def by_x(text: str) -> list[int]:
    """The whole numbers of 128x64; [] where these are not what it holds."""
    words = [word.strip() for word in text.lower().replace("×", "x").split("x")]
    return list(map(int, words)) if all(map(str.isdecimal, words)) else []


def parse_size(size: int | str | None) -> tuple[int, int] | None:
    """(height, width) in pixels of 64, "64" or "128x64" (width x height).

    The shorter side is a power of two from 16 to 256, the longer one a multiple of a quarter of it, 4 times it at most.
    """
    if size is None:
        return None
    numbers = by_x(str(size))
    if len(numbers) not in (1, 2):
        raise InputError(f"--size {size}: give pixels a side, as 64, or width x height, as 128x64")
    width, height = numbers[0], numbers[-1]
    short, long = min(width, height), max(width, height)
    if short not in SIZES:
        near = [str(s) for s in ([s for s in SIZES if s < short][-1:] + [s for s in SIZES if s > short][:1])]
        which = "a size is" if short == long else "the shorter side is"
        raise InputError(f"--size {size}: {which} a power of two from 16 to 256; use {' or '.join(near)}")
    if long % (short // 4) or long > 4 * short:
        raise InputError(
            f"--size {size}: beside {short} pixels the longer side is a multiple of {short // 4}, {4 * short} at most"
        )
    return height, width


def is_size(height: int, width: int) -> bool:
    """Whether it can be given as --size."""
    try:
        return parse_size(size_word(height, width)) == (height, width)
    except InputError:
        return False


def parse_load_size(load_size: int | str | None, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) in pixels of 72 or 144x72 (width x height), beside those of ``size``, which is no larger."""
    if load_size is None:
        return None
    numbers = by_x(str(load_size))
    if len(numbers) not in (1, 2):
        raise InputError(f"--load-size {load_size}: give pixels a side, as 72, or width x height, as 144x72")
    if size is None:
        raise InputError(f"--load-size {load_size}: give --size as well, of the crops that networks see")
    found = numbers[-1], numbers[0]
    if found[0] < size[0] or found[1] < size[1] or found == size:
        raise InputError(
            f"--load-size {load_size}: crops of --size {size_word(*size)} need pictures that are larger; give others"
        )
    return found


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """28x28, 32x32x3 or 3x32x32 → numbers."""
    if text is None:
        return None
    numbers = by_x(text)
    if len(numbers) not in (2, 3) or not all(numbers):
        raise InputError(f"--shape {text}: give height x width, as 28x28, or with channels, as 32x32x3 or 3x32x32")
    return tuple(numbers)


def size_word(height: int, width: int) -> str:
    """What --size says of it: ``64``, ``128x64``."""
    return str(width) if height == width else f"{width}x{height}"


def data_fields(options: DataOptions) -> dict:
    """The fields of DataOptions in options that have more."""
    return {field.name: getattr(options, field.name) for field in fields(DataOptions)}
