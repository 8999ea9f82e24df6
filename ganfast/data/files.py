"""Images in files, with labels and captions from tables beside them or labels from their folders."""

from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image

from ganfast.data import splits, tables
from ganfast.data.images import Frame, half_width, halves, header, is_grey, naming, to_frame, to_map, upright
from ganfast.data.labels import Companions, from_folders
from ganfast.data.options import DataOptions
from ganfast.data.rows import Rows, Survey
from ganfast.data.side_files import kind_of, passed_over
from ganfast.data.trees import Tree
from ganfast.errors import InputError

SURVEYED = 256  # files whose headers decide on size and channels


class EncodedImages(Rows):
    """Images as the bytes of files. Subclasses set ``source``, and say how many there are, their titles and bytes."""

    source: str
    layout: str | None = None  # ab or ba: both sides of a pair lie in each picture
    transposed = False

    def open(self, index: int) -> BinaryIO:
        """One file for reading."""
        raise NotImplementedError

    def naming(self, index: int):
        """Turn whatever reading a file raises into an InputError that names it."""
        return naming(f"{self.source}: {self.title(index)}")

    def picture(self, index: int, needed: int | None = None) -> Image.Image:
        """One file as an upright image."""
        with self.open(index) as file:
            image = upright(file, None if self.pictures == ("maps",) else needed)  # shrinking mixes classes
        return image.transpose(Image.Transpose.TRANSPOSE) if self.transposed else image

    def survey(self) -> Survey:
        sizes, grey = [], True
        for index in np.unique(np.linspace(0, len(self) - 1, SURVEYED).round().astype(int)):
            try:
                with self.naming(index), self.open(index) as file, header(file) as image:
                    width, height = image.size[::-1] if self.transposed else image.size
                    sizes.append((half_width(width) if self.layout else width, height))
                    grey = grey and is_grey(image)
            except InputError:
                continue  # decoding names it
        return Survey(sizes, 1 if grey else 3)

    def halve(self, layout: str) -> None:
        self.layout, self.pictures = layout, ("images", "targets")

    def as_maps(self) -> None:
        if self.layout:
            raise InputError(f"{self.source}: --layout {self.layout} is of pictures; give label maps as --data-b")
        self.pictures = ("maps",)

    def transpose(self) -> None:
        self.transposed = True

    def bring(self, image: Image.Image, frame: Frame) -> np.ndarray:
        """A picture into a frame."""
        return (to_map if "maps" in self.pictures else to_frame)(image, frame)

    def row(self, index: int, frame: Frame) -> tuple[np.ndarray, ...]:
        with self.naming(index):
            image = self.picture(index, max(frame.height, frame.width))
            sides = halves(image) if self.layout else (image,)
            return tuple(self.bring(side, frame) for side in (sides[::-1] if self.layout == "ba" else sides))


class ImageFiles(EncodedImages):
    """The image files of a tree, by path; what else lies there is passed over and counted.

    A folder that holds all the others is left out of their names, and of folders that are the parts of a data set one
    is taken. ``names`` are the paths below it, ``paths`` those from the top.
    """

    def __init__(self, tree: Tree, options: DataOptions):
        self.tree, self.name, self.notes = tree, tree.name, []
        self.source = f"{tree.source}/{tree.inside.rstrip('/')}" if tree.inside else tree.source
        paths = [path for path in tree.names if kind_of(path) is None]
        if not paths:
            raise InputError(f"{self.source}: holds no images")
        self.root = self._descend(paths, options.split)
        self.paths = [path for path in paths if path.startswith(self.root)]
        self.fields, self.unused = options.attributes or "", ""
        self.found, table = self._table()
        if options.skip_unlabelled:
            self._skip_unlabelled()
        self.names = [path.removeprefix(self.root) for path in self.paths]
        side_files = [path for path in tree.names if kind_of(path) is not None and path != table]
        self.notes += filter(None, [passed_over(side_files)])

    def _descend(self, paths: list[str], wanted: str | None) -> str:
        """The folder with the images: below folders that hold all of them, in the part (train, test) that is taken."""
        root, chosen = "", False
        while True:
            folders = {path[len(root) :].partition("/")[0] for path in paths if "/" in path[len(root) :]}
            if any("/" not in path[len(root) :] for path in paths):
                folders = set()  # images beside folders
            if folders and all(map(splits.part_of_folder, folders)) and not chosen:
                folder, notes = splits.choose(self.source, sorted(folders), wanted)
                self.notes += notes
                chosen = True
            elif len(folders) == 1:
                (folder,) = folders
            else:
                break
            root += folder + "/"
            paths = [path for path in paths if path.startswith(root)]
        if not chosen:
            splits.refuse_unpaired(self.source, root, folders)
            splits.refuse(self.source, wanted)
        return root

    def _table(self) -> tuple[tables.Found | None, str]:
        """What the first table that says something of the files says, and where it lies."""
        folders = [self.root[: end + 1] for end, letter in enumerate(self.root) if letter == "/"]
        places = {folder: -depth for depth, folder in enumerate(["", *folders])}  # the nearest one first
        ranked = []
        for name in self.tree.names:
            folder = name[: name.rfind("/") + 1]
            if folder in places and (rank := tables.rank(name)) is not None:
                ranked.append((rank, places[folder], name, folder))
        for rank, _, name, folder in sorted(ranked):
            table = tables.read(self.tree, name, self.fields)
            if table is not None:
                found = table.find([tables.ways(path, folder, self.root) for path in self.paths])
                if rank < tables.CERTAIN or any(found.labelled()):
                    return found, name
                self.unused = self.unused or table.why
        return None, ""

    def _skip_unlabelled(self) -> None:
        by_table = self.found is not None and bool(self.found.columns)
        have = self.found.labelled() if by_table else np.array(["/" in p.removeprefix(self.root) for p in self.paths])
        if not have.any():
            raise InputError(f"{self.source}: no image has a label; leave out --skip-unlabelled")
        if not have.all():
            self.notes.append(f"skipped {int((~have).sum())} of {len(have)} images, which have no label")
        self.paths = [path for path, has in zip(self.paths, have) if has]
        if by_table:
            columns = {name: [v for v, has in zip(values, have) if has] for name, values in self.found.columns.items()}
            self.found = tables.Found(self.found.table, columns)

    def __len__(self) -> int:
        return len(self.paths)

    def title(self, index: int) -> str:
        return self.paths[index].removeprefix(self.tree.inside)

    def open(self, index: int) -> BinaryIO:
        path = self.paths[index]
        if self.tree.path(path):
            return self.tree.open(path)
        return BytesIO(self.tree.read(path))  # decoders seek, which is slow in an archive

    def companions(self, kept: np.ndarray) -> Companions:
        """What the table says; where it says nothing of labels, classes from first-level folders."""
        found = Companions() if self.found is None else self.found.companions(kept)
        if self.fields and "attributes" not in found.columns:
            why = found.absent.get("attributes") or self.unused or "no table beside the images has fields"
            raise InputError(f"{self.source}: --attributes {self.fields}: {why}")
        if self.found is not None and not self.found.table.silent:
            return found
        by_folder = from_folders([self.names[k] for k in kept])
        if found.columns or not found.absent:
            return by_folder | found
        return by_folder if by_folder.columns else found

    def close(self) -> None:
        self.tree.close()
