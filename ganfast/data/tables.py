"""What lies beside images and says something of them: dataset.json, metadata.csv or .jsonl, CelebA's attributes.

Paths in them are compared in Unicode's form NFC, with forward slashes.
"""

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from ganfast.data import attributes as named
from ganfast.data.images import naming
from ganfast.data.labels import Companions, captions, from_array, without_labels
from ganfast.data.trees import Tree
from ganfast.errors import InputError

# names of columns in tables, the first of them that is there
FILE_NAMES = ("file_name", "filename", "image_id", "file", "image", "path", "id")
LABELS = ("label", "labels", "class", "class_name", "category", "target")
IDENTITIES = ("identity", "person", "subject")
CAPTIONS = ("text", "caption", "captions", "description", "prompt")


@dataclass
class Table:
    """Labels and further columns by path: values of the column, for the paths that have one."""

    title: str
    columns: dict[str, dict[str, object]] = field(default_factory=dict)
    """"labels", "identities", "captions" → {path: value}; "attributes" → {path: [values]}"""
    names: list[str] | None = None
    """of the classes by number, or of the attributes that labels are"""
    attributes: list[str] = field(default_factory=list)
    """the names of the column attributes"""
    why: str = ""
    """why it says nothing of labels"""
    silent: bool = False
    """whether it does not even say that there are none, so that folders may"""

    def find(self, paths: list[tuple[str, ...]]) -> "Found":
        """What it has of files that each may go by any of some paths: of the k-th paths those that fit most often."""
        known = set().union(*self.columns.values())
        by_way = [list(keys) for keys in zip(*paths)]
        clear = [keys for keys in by_way if len(set(keys)) == len(keys)]  # files of one name may lie in two folders
        keys = max(clear, key=lambda keys: sum(key in known for key in keys), default=[])
        return Found(self, {name: [values.get(k) for k in keys] for name, values in self.columns.items()})


@dataclass
class Found:
    """The columns of a table for the files of a source, None where it has no value."""

    table: Table
    columns: dict[str, list]

    def labelled(self) -> np.ndarray:
        """bool [N]: which files have a label, or else a row of attributes."""
        values = self.columns.get("labels") or self.columns.get("attributes") or self.columns.get("captions") or []
        return np.array([value is not None for value in values], bool)

    def companions(self, kept: np.ndarray) -> Companions:
        if self.table.why:
            return without_labels(self.table.why)
        found = Companions()
        for name, make in (
            ("captions", self._captions),
            ("attributes", self._attributes),
            ("identities", self._identities),
            ("labels", self._labels),
        ):
            values = [self.columns[name][k] for k in kept] if name in self.columns else []
            if values:
                found |= self._column(name, values, make)
        return found

    def _column(self, name: str, values: list, make: Callable[[list], Companions]) -> Companions:
        have = sum(value is not None for value in values)
        if have < len(values):
            does = "labels" if name == "labels" else f"has {name} for"
            why = f"{self.table.title} {does} only {have} of {len(values)} files; --skip-unlabelled skips the others"
            return without_labels(why) if name == "labels" else Companions(absent={name: why})
        try:
            return make(values)
        except InputError as error:
            why = f"{self.table.title} {error}"
            return without_labels(why) if name == "labels" else Companions(absent={name: why})

    def _labels(self, values: list) -> Companions:
        return from_array(_as_array(values), len(values), self.table.names)

    def _attributes(self, values: list) -> Companions:
        array = np.array(values, np.float32)
        if not np.isfinite(array).all():
            raise InputError("has attributes that are NaN or infinite")
        return Companions({"attributes": array}, {"attributes": tuple(self.table.attributes)})

    def _identities(self, values: list) -> Companions:
        found = from_array(_as_array(values), len(values))
        return Companions({"identities": found.columns["labels"]}, {"identities": found.names["labels"]})

    def _captions(self, values: list) -> Companions:
        return Companions({"captions": captions(values)})


def read(tree: Tree, name: str, fields: str = "") -> Table | None:
    """The table in the file ``name``; None where it is about something else. What is damaged says why.

    ``fields`` are those that are the attributes, by default all that are numbers (``attributes.of_records``).
    """
    title, place = PurePosixPath(name).name, rank(name)
    try:
        with naming(title):
            table = READERS[place][1](tree.read(name), title, fields)
            nothing = Table(title, why=f"{title} names no file with a label", silent=True)
            return nothing if table is None and place < CERTAIN else table
    except InputError as error:
        return Table(title, why=str(error))


def rank(name: str) -> int | None:
    """How early a file is read for labels, smallest first; None where it is no table that could have any."""
    title = PurePosixPath(name).name.lower()
    return next((k for k, (fits, _) in enumerate(READERS) if fits(title)), None)


def normal(path: str) -> str:
    return unicodedata.normalize("NFC", path.replace("\\", "/")).removeprefix("./")


def ways(path: str, folder: str, root: str) -> tuple[str, ...]:
    """How a table in ``folder`` may call the file at ``path``: from there, from the images' root, by its name alone."""
    path = normal(path)
    inside = path.removeprefix(normal(folder))
    name = PurePosixPath(path).name
    return inside, path.removeprefix(normal(root)), path, name, PurePosixPath(name).stem


# -- dataset.json ------------------------------------------------------------------------------------------------------


def read_dataset_json(content: bytes, title: str, fields: str = "") -> Table:
    """{"labels": [["path", label], …] or {"path": label} or null, "names": ["…", …]}; or a list of records.

    A label is a whole number, a string, a float or a vector of numbers, alike for all files. ``names`` (or "classes")
    names the classes by number, or the attributes. Records with the name of a file, under any key, are read like the
    rows of metadata.jsonl. Further entries are ignored.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        return Table(title, why=f"{title} is not valid JSON ({error})")
    entries = found if isinstance(found, dict) else {"": found}
    if "labels" not in entries or fields:
        lists = [rows for rows in entries.values() if isinstance(rows, list) and rows]
        tables = [_of_rows(rows, title, fields) for rows in lists if all(isinstance(row, dict) for row in rows)]
        if any(tables):
            return next(filter(None, tables))
    if "labels" not in entries:
        return Table(title, why=f'{title} has no "labels"', silent=True)
    return _of_labels(entries, title)


def _of_labels(found: dict, title: str) -> Table:
    lists = [found[key] for key in ("names", "classes") if isinstance(found.get(key), list)]
    given = found["labels"] or []
    entries = list(map(list, given.items())) if isinstance(given, dict) else given
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        return Table(title, why=f'the "labels" of {title} are not [["path", 0], …]')
    labels = {normal(path): label for path, label, *_ in entries if label is not None}
    return Table(title, {"labels": labels} if labels else {}, list(map(str, lists[0])) if lists else None)


def _is_entry(entry: object) -> bool:
    """["path", label], and perhaps more, such as "train"."""
    return isinstance(entry, list) and len(entry) >= 2 and isinstance(entry[0], str)


# -- metadata.csv, .tsv, .jsonl ----------------------------------------------------------------------------------------


def read_csv(content: bytes, title: str, fields: str = "") -> Table | None:
    text = _text(content)
    if not text.strip():
        return None
    first = text.splitlines()[0]
    delimiter = max("\t,;", key=first.count)  # the first of those that occur as often
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    return _of_rows([{key: value for key, value in row.items() if isinstance(key, str)} for row in rows], title, fields)


def read_jsonl(content: bytes, title: str, fields: str = "") -> Table | None:
    rows = [json.loads(line) for line in _text(content).splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        return None
    return _of_rows(rows, title, fields)


def _of_rows(rows: list[dict], title: str, fields: str) -> Table | None:
    """A table out of rows with a file's name: label, identity, caption, and as attributes ``fields`` or all numbers."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    by_word = {key.strip().lower(): key for key in reversed(keys)}
    file, label, identity, caption = (
        next((by_word[word] for word in words if word in by_word), None)
        for words in (FILE_NAMES, LABELS, IDENTITIES, CAPTIONS)
    )
    if file is None or not rows:
        return None
    rows = [row for row in rows if isinstance(row.get(file), str) and row[file]]
    paths = [normal(row[file]) for row in rows]
    columns: dict[str, dict] = {}
    for name, key in (("labels", label), ("identities", identity)):
        values = _alike([row.get(key) for row in rows])
        columns[name] = {p: v for p, v in zip(paths, values) if v is not None}
    if caption is not None:
        columns["captions"] = {p: row[caption] for p, row in zip(paths, rows) if isinstance(row.get(caption), str)}
    others = [key for key in keys if key not in (file, label, identity, caption)]
    names, values = named.of_records(rows, fields) if fields else _numbers(rows, others)
    columns["attributes"] = dict(zip(paths, values))
    columns = {name: values for name, values in columns.items() if values}
    return Table(title, columns, attributes=names, silent=label is None) if columns else None


def _numbers(rows: list[dict], keys: list[str]) -> tuple[list[str], list[list[float]]]:
    """Those of ``keys`` that are numbers in all rows, and these."""
    numbers = {key: [_number(row.get(key)) for row in rows] for key in keys}
    numbers = {key: values for key, values in numbers.items() if values and None not in values}
    return [*numbers], [list(row) for row in zip(*numbers.values())]


def _alike(values: list) -> list:
    """Values of a column of text as whole numbers, floats or strings, whichever all of them are; "" is None."""
    values = [None if value is None or (isinstance(value, str) and not value.strip()) else value for value in values]
    if not all(value is None or isinstance(value, str) for value in values):
        return values
    for kind in (int, float):
        try:
            return [None if value is None else kind(value) for value in values]
        except ValueError:
            continue
    return values


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except ValueError:
        return None


# -- CelebA ------------------------------------------------------------------------------------------------------------


def read_celeba(content: bytes, title: str, fields: str = "") -> Table | None:
    """list_attr_celeba.txt: how many files, the names of the attributes, then a file and its numbers in every line."""
    lines = [line.split() for line in _text(content).splitlines() if line.strip()]
    names = lines[1] if len(lines) > 2 else []
    try:
        rows = {normal(path): list(map(float, values)) for path, *values in lines[2:]}
    except ValueError as error:
        return Table(title, why=f"{title} is not CelebA's list of attributes ({error})")
    if not rows or any(len(values) != len(names) for values in rows.values()):
        return Table(title, why=f"{title} is not CelebA's list of attributes, its lines differ in length")
    if fields:
        return _of_rows([{"file": path, **dict(zip(names, values))} for path, values in rows.items()], title, fields)
    return Table(title, {"attributes": rows}, attributes=names, silent=True)


def _named(*words: str) -> Callable[[str], bool]:
    return lambda name: name in words


def _like(starts: tuple[str, ...], *ends: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(starts) and name.endswith(ends)


LABELLING = ("label", "train", "caption")

# whether a file's name in lower case is that of a table, the first ones first, and how it is read
READERS: tuple[tuple[Callable[[str], bool], Callable[[bytes, str, str], Table | None]], ...] = (
    (_named("dataset.json"), read_dataset_json),
    (_named("metadata.csv", "metadata.tsv"), read_csv),
    (_named("metadata.jsonl"), read_jsonl),
    (_like(("list_attr",), ".txt"), read_celeba),
    (_like(("list_attr",), ".csv"), read_csv),
    (_like(LABELLING, ".csv", ".tsv"), read_csv),
    (_like(LABELLING, ".jsonl"), read_jsonl),
    (_like(("",), ".csv", ".tsv"), read_csv),
    (_like(("",), ".jsonl"), read_jsonl),
)
CERTAIN = 3  # of these are the images' own, so that what they lack is said


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _as_array(values: Sequence) -> np.ndarray:
    """An array of labels out of JSON: int64, float64 or strings."""
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return np.array(values, object)
    items = values
    if kinds == {list}:
        lengths = {len(value) for value in values}
        if len(lengths) > 1:
            raise InputError(f"has labels of length {min(lengths)} and of length {max(lengths)}")
        items = [item for value in values for item in value]
        kinds = {type(item) for item in items}
    if not kinds <= {bool, int, float}:
        raise InputError(f"has labels of the types {', '.join(sorted(kind.__name__ for kind in kinds))}")
    try:
        return np.array(values, np.float64 if float in kinds else np.int64)
    except OverflowError as error:
        raise InputError("has a label beyond 64 bits") from error
