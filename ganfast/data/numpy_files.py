""".npy and .npz files: images or points, with labels and further columns under their own names."""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ganfast.data import labels, splits
from ganfast.data.arrays import SLACK, ArrayRows, ImageArray
from ganfast.data.dataset import Dataset, slug
from ganfast.data.labels import Companions
from ganfast.data.options import DataOptions, parse_shape
from ganfast.data.rows import Rows, check_ram
from ganfast.errors import InputError

# names in lower case and without the word for a part: x of x_train
IMAGE_KEYS = ("images", "imgs", "image", "img", "x", "data", "pixels", "arr_0")
LABEL_KEYS = ("labels", "label", "y", "classes", "target", "targets")  # targets that are pictures are partners
NAMES_KEY = "names"  # strings: of the classes by number, or of the attributes
DAMAGE = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)

Head = tuple[tuple[int, ...], np.dtype]  # shape and type of an array


def open_array(path: Path, options: DataOptions) -> Rows | Dataset:
    """Rows where the samples are images, else a Dataset. Never unpickles.

    A .npy file holds images [N, H, W], [N, H, W, C] or [N, C, H, W], or points (floats [N, D]), or with --shape one
    image a row [N, D]. A .npz file holds the same under one of IMAGE_KEYS, or as its only array that can be it, or
    points, tokens, audio or clips under these names; beside them labels under one of LABEL_KEYS, their names as
    ``names``, and targets and further columns under their own names. Names may have the word for a part, as x_train.
    What is beside the samples and cannot be used is left out, with the reason.
    """
    shape = parse_shape(options.shape)
    try:
        found = np.load(path, mmap_mode="c" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(found, np.ndarray):
            splits.refuse(str(path), options.split)
            found = _shaped(str(path), found, shape)
            opened = _opened(path, str(path), _kind(found), found, Companions(), {})
        else:
            with found:
                opened = _open_archive(path, found, options, shape)
        if shape is not None:
            opened.reshaped = True
        return opened
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path}: a damaged array file, or one that holds Python objects ({error})") from error


def _open_archive(path: Path, found: np.lib.npyio.NpzFile, options: DataOptions, shape) -> Rows | Dataset:
    heads, objects = _heads(found)
    key, part, notes = _sample_key(path, heads, objects, options.split)
    own = {splits.without_part(k): k for k in heads if splits.part_of(k) in (None, part) or part is None}
    own |= {splits.without_part(k): k for k in heads if splits.part_of(k) == part}  # those of the part come first
    check_ram(str(path), sum(member.file_size for member in found.zip.infolist()))
    column = splits.without_part(key)
    array = found[key] if column in COLUMNS else _shaped(f"{path}: {key}", found[key], shape)
    column = column if column in COLUMNS else _kind(array)
    ranks = {name: len(heads[own_key][0]) for name, own_key in own.items()}
    beside, targets = _beside(found, own, ranks, {key, own.get(column)}, len(array) if array.ndim else 0)
    opened = _opened(path, f"{path}: {key}", column, array, _hidden(objects) | beside, targets)
    if objects:
        notes += [f"passed over arrays that hold Python objects, which could run code: {', '.join(objects)}"]
    opened.notes = [*opened.notes, *notes]
    return opened


def _hidden(objects: list[str]) -> Companions:
    """What arrays of Python objects would have been."""
    why = "the array {} is damaged or holds Python objects"
    found = Companions()
    for role in map(splits.without_part, objects):
        if role in LABEL_KEYS and role != "targets":
            found |= labels.without_labels(why.format(role))
        elif role in ("targets", *COLUMNS):
            found.absent[role] = why.format(role)
    return found


def _heads(found: np.lib.npyio.NpzFile) -> tuple[dict[str, Head], list[str]]:
    """Shape and type of each array, without reading it; and the names of those that hold Python objects."""
    heads, objects = {}, []
    for key in found.files:
        try:
            heads[key] = _head(found, key)
        except DAMAGE:
            heads[key] = (), np.dtype("V")  # reading it says so
        if heads[key][1].hasobject:
            del heads[key]
            objects.append(key)
    return heads, objects


def _head(found: np.lib.npyio.NpzFile, key: str) -> Head:
    with found.zip.open(key if key in found.zip.namelist() else f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return shape, dtype


def _shaped(source: str, array: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """Rows of flat images [N, D] as images; InputError where they are integers and nobody says of what shape."""
    if shape is None:
        if array.ndim == 2 and array.dtype.kind in "biu" and array.size:
            raise InputError(f"{source}: rows of {array.shape[1]} numbers; {_suggested(array.shape[1])}")
        return array
    word = "x".join(map(str, shape))
    if array.ndim != 2 or array.shape[1] != np.prod(shape):
        raise InputError(f"{source}: --shape {word} is for rows of {np.prod(shape)} numbers, not {list(array.shape)}")
    return array.reshape(len(array), *shape)


def _suggested(count: int) -> str:
    """The --shape that square images in rows of ``count`` numbers have."""
    grey, colour = math.isqrt(count), math.isqrt(count // 3)
    if grey * grey == count:
        return f"give --shape {grey}x{grey} where each is an image"
    if 3 * colour * colour == count:
        return f"give --shape 3x{colour}x{colour} (planes) or {colour}x{colour}x3 where each is an image"
    return "give --shape HEIGHTxWIDTH where each is an image"


def _kind(array: np.ndarray) -> str:
    return "points" if array.ndim == 2 and array.dtype.kind == "f" and array.size else "images"


def _opened(
    path: Path, source: str, column: str, array: np.ndarray, beside: Companions, targets: dict[str, np.ndarray]
) -> Rows | Dataset:
    """The data set of the samples ``array`` and what is beside them."""
    name = slug(path.stem)
    if column != "images":
        try:
            values = torch.from_numpy(np.ascontiguousarray(COLUMNS[column](array)))
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        absent = dict(beside.absent)
        if column == "points" and values.shape[1] > 3:
            absent["images"] = f"its rows are {values.shape[1]} numbers: {_suggested(values.shape[1])}"
        return Dataset(name, **{column: values}, **beside.tensors(), names=beside.names, absent=absent)
    images = ImageArray(source, array)
    for key, values in targets.items():
        try:
            return ArrayRows(name, images, beside, ImageArray(f"{path}: {key}", values))
        except InputError as error:
            beside.absent[key] = str(error).removeprefix(f"{path}: ")
    return ArrayRows(name, images, beside)


def _sample_key(
    path: Path, heads: dict[str, Head], objects: list[str], wanted: str | None
) -> tuple[str, str | None, list[str]]:
    """(the array of samples, its part, notes): a usual name of images, else of a column, else the only array with
    three axes or more, or the only one with two."""
    usual = (*IMAGE_KEYS, *(name for name in COLUMNS if name != "attributes"))
    others = {*LABEL_KEYS, NAMES_KEY, "attributes"}
    by_role: dict[str, dict[str | None, str]] = {}
    for key in heads:
        by_role.setdefault(splits.without_part(key), {})[splits.part_of(key)] = key
    role = next((role for role in usual if role in by_role), None)
    ranks = {r: max(len(heads[key][0]) for key in keys.values()) for r, keys in by_role.items() if r not in others}
    for able in ([r for r in ranks if ranks[r] >= 3], [r for r in ranks if ranks[r] == 2]):
        role = able[0] if role is None and len(able) == 1 else role
    if role is None:
        held = ", ".join(heads) or "none"
        passed = f" (and {', '.join(objects)} with Python objects)" if objects else ""
        raise InputError(f"{path}: holds the arrays {held}{passed}; name the samples one of {', '.join(usual)}")
    parts = by_role[role]
    if set(parts) == {None}:
        splits.refuse(str(path), wanted)
        return parts[None], None, []
    key, notes = splits.choose(str(path), parts.values(), wanted)
    return key, splits.part_of(key), notes


def _beside(
    found: np.lib.npyio.NpzFile, own: dict[str, str], ranks: dict[str, int], used: set[str | None], count: int
) -> tuple[Companions, dict[str, np.ndarray]]:
    """Labels and further columns of ``count`` samples, ``own`` by their usual names; targets where there are any."""
    beside, targets, names = Companions(), {}, None
    own = {role: key for role, key in own.items() if key not in used}
    if NAMES_KEY in own:
        with contextlib.suppress(InputError):  # numbers serve where they cannot be read
            names = list(map(str, _read(found, own[NAMES_KEY]).reshape(-1)))
    if ranks.get("targets", 0) > 2 and "targets" in own:
        try:
            targets["targets"] = _read(found, own.pop("targets"))
        except InputError as error:
            beside.absent["targets"] = str(error)
    key = next((own[role] for role in LABEL_KEYS if role in own), None)
    if key is not None:
        try:
            beside |= labels.from_array(_read(found, key), count, names)
        except InputError as error:
            beside |= labels.without_labels(str(error))
    for column in COLUMNS:
        if column in own:
            named = column == "attributes" and key is None
            beside |= _column(found, own[column], column, count, names if named else None)
    return beside, targets


def _column(found: np.lib.npyio.NpzFile, key: str, column: str, count: int, names: list[str] | None) -> Companions:
    try:
        values = _read(found, key)
        if values.ndim and len(values) != count:
            raise InputError(f"{len(values)} rows for {count} samples")
        values = COLUMNS[column](values)
        own = {column: labels.fitting(names, values.shape[1])} if column == "attributes" else {}
        return Companions({column: values}, own)
    except InputError as error:
        return Companions(absent={column: f"its array {key}: {error}"})


def _read(found: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        return found[key]
    except DAMAGE as error:
        raise InputError(f"the array {key} is damaged or holds Python objects") from error


def _points(values: np.ndarray) -> np.ndarray:
    _check(values, "f", 2, "points are floats [N, D]")
    return labels.attributes(values)


def _tokens(values: np.ndarray) -> np.ndarray:
    _check(values, "iu", 2, "tokens are whole numbers [N, T]")
    if values.min() < 0 or values.max() >= 2**63:
        raise InputError(f"values from {values.min()} to {values.max()}; tokens count from 0")
    return values.astype(np.int64)


def _audio(values: np.ndarray) -> np.ndarray:
    _check(values, "if", 2, "audio is int16 or floats [N, T]")
    if values.dtype.kind == "i":
        if values.dtype.itemsize != 2:
            raise InputError(f"audio of {values.dtype}; audio is int16 or floats [N, T]")
        return values.astype(np.int16)
    if not np.isfinite(values).all() or abs(values).max() > 1 + SLACK:
        raise InputError("NaN, infinity or values beyond [-1, 1]; scale the audio to [-1, 1] or use int16")
    return values.astype(np.float32).clip(-1, 1)


def _clips(values: np.ndarray) -> np.ndarray:
    _check(values, "u", 5, "clips are uint8 [N, T, H, W, C]")
    if values.dtype != np.uint8:
        raise InputError(f"clips of {values.dtype}; clips are uint8 [N, T, H, W, C]")
    return values


def _check(values: np.ndarray, kinds: str, axes: int, needed: str) -> None:
    if values.dtype.kind not in kinds or values.ndim != axes or 0 in values.shape:
        raise InputError(f"an array of {values.dtype} and shape {list(values.shape)}; {needed}")


# what an array under the name of a column becomes; InputError where it cannot be that column
COLUMNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "points": _points,
    "clips": _clips,
    "audio": _audio,
    "tokens": _tokens,
    "attributes": labels.attributes,
}
