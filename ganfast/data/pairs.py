"""Pairs of images: both sides in one picture, or the files of equal names in two places."""

from pathlib import PurePosixPath

import numpy as np

from ganfast.data.files import ImageFiles
from ganfast.data.images import Frame, check_proportions
from ganfast.data.labels import Companions
from ganfast.data.rows import Rows, Survey
from ganfast.data.tables import normal
from ganfast.errors import InputError


def check_layout(layout: str | None, targets: str | None) -> None:
    """Refuse a layout beside a second source."""
    if layout and targets is not None:
        raise InputError(f"--layout {layout}: both sides lie in one picture, so leave out the targets {targets}")


class PairedFiles(Rows):
    """Images from one folder or zip and their targets from another: the paths are equal up to the suffix.

    Labels are those of the images. Raises InputError where a file has no partner or more than one.
    """

    pictures = ("images", "targets")

    def __init__(self, images: ImageFiles, targets: ImageFiles):
        self.images, self.targets, self.name = images, targets, images.name
        self.notes = [*images.notes, *(f"{targets.name}: {note}" for note in targets.notes)]
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

    def survey(self) -> Survey:
        own, others = self.images.survey(), self.targets.survey()
        return Survey(own.sizes, own.channels if "maps" in self.pictures else max(own.channels, others.channels))

    def halve(self, layout: str) -> None:
        check_layout(layout, self.targets.source)

    def as_maps(self) -> None:
        self.targets.as_maps()
        self.pictures = ("images", "maps")

    def transpose(self) -> None:
        self.images.transpose(), self.targets.transpose()

    def row(self, index: int, frame: Frame) -> tuple[np.ndarray, ...]:
        found, pictures = [], []
        for files, k in ((self.images, index), (self.targets, self.partner[index])):
            with files.naming(k):
                image = files.picture(k, max(frame.height, frame.width))
                found.append(image.size)
                pictures.append(files.bring(image, frame))
        with self.targets.naming(self.partner[index]):
            check_proportions(*found)
        return tuple(pictures)

    def companions(self, kept: np.ndarray) -> Companions:
        return self.images.companions(kept)

    def close(self) -> None:
        self.images.close()
        self.targets.close()


def _stem(name: str) -> str:
    return PurePosixPath(normal(name)).with_suffix("").as_posix()


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
