"""Pairs of images: both sides in one picture, or the files of equal names in two places."""

from pathlib import PurePosixPath

import numpy as np

from ganfast.data.files import ImageFiles
from ganfast.data.images import check_proportions, naming, to_square
from ganfast.data.labels import Companions
from ganfast.data.rows import Rows
from ganfast.errors import InputError

LAYOUTS = ("ab", "ba")


def check_layout(layout: str | None, targets: str | None) -> None:
    """Refuse an unknown layout, and one beside a second source."""
    if layout not in (None, *LAYOUTS):
        raise InputError(
            f"--layout {layout}: use ab (images on the left, targets on the right) or ba (the other way round)"
        )
    if layout and targets is not None:
        raise InputError(f"--layout {layout}: both sides lie in one picture, so leave out the targets {targets}")


class PairedFiles(Rows):
    """Images from one folder or zip and their targets from another: the paths are equal up to the suffix.

    Labels are those of the images. Raises InputError where a file has no partner or more than one.
    """

    pictures = ("images", "targets")

    def __init__(self, images: ImageFiles, targets: ImageFiles):
        self.images, self.targets, self.name = images, targets, images.name
        own, others = _by_stem(images), _by_stem(targets)
        for one, other in ((images, targets), (targets, images)):
            partners = others if one is images else own
            alone = [name for name in one.names if _stem(name) not in partners]
            if alone:
                raise InputError(
                    f"{other.source}: has no partner for {alone[0]} of {one.source} ({len(alone)} in all have none); "
                    "partners have the same path, whatever the suffix: add them or remove the file"
                )
        self.partner = [others[_stem(name)] for name in images.names]

    def __len__(self) -> int:
        return len(self.images)

    def title(self, index: int) -> str:
        return self.images.title(index)

    def side(self, index: int) -> int:
        return self.images.side(index)

    def native_channels(self) -> int:
        return max(self.images.native_channels(), self.targets.native_channels())

    def split(self, layout: str) -> None:
        check_layout(layout, self.targets.source)

    def row(self, index: int, size: int, channels: int) -> tuple[np.ndarray, ...]:
        found, squares = [], []
        for files, k in ((self.images, index), (self.targets, self.partner[index])):
            with files.naming(k):
                image = files.picture(k)
                found.append(image.size)
                squares.append(to_square(image, size, channels))
        with naming(f"{self.targets.source}: {self.targets.names[self.partner[index]]}"):
            check_proportions(*found)
        return tuple(squares)

    def companions(self, kept: np.ndarray) -> Companions:
        return self.images.companions(kept)

    def close(self) -> None:
        self.images.close()
        self.targets.close()


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _by_stem(files: ImageFiles) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, name in enumerate(files.names):
        other = found.setdefault(_stem(name), index)
        if other != index:
            raise InputError(
                f"{files.source}: {files.names[other]} and {name} differ only in the suffix, so the partner is not "
                "clear; remove one"
            )
    return found
