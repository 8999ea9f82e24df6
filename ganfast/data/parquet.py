"""Parquet files with a column of encoded images, as Hugging Face's hub has them (needs pyarrow)."""

import importlib.util
import json
from io import BytesIO
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np

from ganfast.data import labels, splits
from ganfast.data.files import EncodedImages
from ganfast.data.labels import Companions
from ganfast.data.options import DataOptions
from ganfast.data.rows import check_ram
from ganfast.data.tables import CAPTIONS, LABELS
from ganfast.data.trees import Tree
from ganfast.errors import InputError


def sets(tree: Tree) -> dict[str, list[str]]:
    """Files of each part: train-00000-of-00002.parquet, … by the word before the numbers."""
    found: dict[str, list[str]] = {}
    for name in tree.names:
        path = PurePosixPath(name)
        if path.suffix.lower() == ".parquet":
            part = splits.part_of(path.name) or splits.part_of(path.parent.name) or "all"
            found.setdefault(part, []).append(name)
    return found


def open_sets(tree: Tree, found: dict[str, list[str]], options: DataOptions) -> "ParquetImages":
    chosen, notes = splits.choose(tree.source, found, options.split)
    rows = ParquetImages(tree, found[chosen])
    rows.notes += notes
    return rows


class ParquetImages(EncodedImages):
    """The rows of some files; ``image`` holds the bytes of a file, or ``image.bytes`` does."""

    def __init__(self, tree: Tree, names: list[str]):
        if importlib.util.find_spec("pyarrow") is None:
            raise InputError(f"{tree.source}: parquet needs pyarrow; run pip install 'ganfast[parquet]'")
        import pyarrow

        self.tree, self.source, self.name, self.notes = tree, tree.source, tree.name, []
        check_ram(self.source, sum(map(tree.size, names)))
        try:
            self.table = pyarrow.concat_tables([self._read(name) for name in names], promote_options="default")
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{self.source}: damaged, or no parquet files of one form ({error})") from error
        self.images = self.table.column(self._image_column())
        if not len(self.images):
            raise InputError(f"{self.source}: holds no rows")

    def _read(self, name: str):
        import pyarrow
        from pyarrow import parquet

        source = f"{self.source}/{name}"
        try:
            with self.tree.open(name) as file:
                return parquet.read_table(pyarrow.py_buffer(file.read()))
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{source}: a damaged parquet file ({error}); fetch it again") from error

    def _image_column(self) -> str:
        import pyarrow

        def of_images(kind) -> bool:
            if pyarrow.types.is_struct(kind):
                kind = next((field.type for field in kind if field.name == "bytes"), pyarrow.null())
            return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

        found = [field.name for field in self.table.schema if of_images(field.type)]
        usual = [name for name in ("image", "img", "images", "jpg", "png", "bytes") if name in found]
        if not found:
            held = ", ".join(self.table.schema.names)
            raise InputError(f"{self.source}: none of the columns {held} holds images; name image.bytes or image so")
        return (usual or found)[0]

    def __len__(self) -> int:
        return len(self.images)

    def title(self, index: int) -> str:
        return f"row {index}"

    def open(self, index: int) -> BinaryIO:
        value = self.images[int(index)].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise InputError("it has no bytes of an image")
        return BytesIO(content)

    def companions(self, kept: np.ndarray) -> Companions:
        """Labels with the names that Hugging Face's metadata give them, and captions."""
        by_word = {name.lower(): name for name in self.table.schema.names}
        found = Companions()
        caption = next((by_word[word] for word in CAPTIONS if word in by_word), None)
        if caption is not None:
            texts = self._values(caption, kept)
            if all(isinstance(text, str) for text in texts):
                found |= Companions({"captions": labels.captions(texts)})
        label = next((by_word[word] for word in (*LABELS, "fine_label") if word in by_word), None)
        if label is None:
            return found
        values = self._values(label, kept)
        if None in values:
            return found | labels.without_labels(f"{values.count(None)} of {len(values)} rows have no {label}")
        try:
            array = np.array(values, object if isinstance(values[0], str) else None)
        except ValueError:
            return found | labels.without_labels(f"the column {label} has vectors of several lengths")
        return found | labels.from_array(array, len(values), self._names(label))

    def _values(self, column: str, kept: np.ndarray) -> list:
        return self.table.column(column).take(np.asarray(kept, np.int64)).to_pylist()

    def _names(self, label: str) -> list[str] | None:
        try:
            about = json.loads((self.table.schema.metadata or {})[b"huggingface"])
            names = about["info"]["features"][label]["names"]
            return [str(name) for name in names]
        except (KeyError, ValueError, TypeError):
            return None

    def close(self) -> None:
        self.tree.close()
