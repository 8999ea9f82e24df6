"""Sizes of images: pixels a side, or (height, width), which networks reach from a few pixels by doubling."""

from collections.abc import Sequence

from ganfast.errors import InputError

SHORT = (16, 32, 64, 128, 256)  # pixels of the shorter side

Size = int | Sequence[int]


def sides(size: Size) -> tuple[int, int]:
    """(height, width)."""
    height, width = (size, size) if isinstance(size, int) else map(int, size)
    return height, width


def compact(size: Size) -> Size:
    """``size`` as a network's ``config`` has it: one number where the image is square, else (height, width)."""
    height, width = sides(size)
    return height if height == width else (height, width)


def doublings(size: Size, start: int, name: str) -> int:
    """How often ``start`` pixels double up to the shorter side.

    Raises ``InputError`` where that is not a power of two from 16 to 256, or the longer one no multiple of its quarter.
    """
    small, large = sorted(sides(size))
    if small not in SHORT:
        raise InputError(
            f"{name} makes images whose shorter side is 16, 32, 64, 128 or 256, not {small}: choose one (--size)."
        )
    if large % (small // 4):
        raise InputError(
            f"{name} makes images whose longer side is a multiple of {small // 4} beside one of {small} pixels, not "
            f"{large}: choose another (--size)."
        )
    return (small // start).bit_length() - 1


def smallest(size: Size, start: int, name: str) -> tuple[int, int]:
    """(height, width) of the features that double up to ``size``; their shorter side is ``start``."""
    times = doublings(size, start, name)
    height, width = sides(size)
    return height >> times, width >> times
