""".npy and .npz files: images or points, with labels and further columns under their own names."""

import contextlib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ganfast.data import labels
from ganfast.data.arrays import SLACK, ArrayRows, ImageArray
from ganfast.data.dataset import Dataset, slug
from ganfast.data.labels import Companions
from ganfast.data.rows import Rows, check_ram
from ganfast.errors import InputError

IMAGE_KEYS = ("images", "x", "x_train", "arr_0")
LABEL_KEYS = ("labels", "y", "y_train")
NAMES_KEY = "names"  # strings: of the classes by number, or of the attributes
DAMAGE = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def open_array(path: Path) -> Rows | Dataset:
    """Rows where the samples are images, else a Dataset. Never unpickles.

    A .npy file holds images [N, H, W], [N, H, W, C] or [N, C, H, W], or points (floats [N, D]). A .npz file holds the
    same under one of IMAGE_KEYS, or as its only array that can be it, or points, tokens, audio or clips under these
    names; beside them labels under one of LABEL_KEYS, their names as ``names``, and targets and further columns under
    their own names. What is beside the samples and cannot be used is left out, with the reason.
    """
    try:
        found = np.load(path, mmap_mode="c" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return _opened(path, str(path), _kind(found), found, Companions(), {})
        with found:
            check_ram(str(path), sum(member.file_size for member in found.zip.infolist()))
            key = _sample_key(path, found)
            array = found[key]
            column = key if key in COLUMNS else _kind(array)
            beside, targets = _beside(found, {key, column}, len(array) if array.ndim else 0)
            return _opened(path, f"{path}: {key}", column, array, beside, targets)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path}: a damaged array file, or one that holds Python objects ({error})") from error


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
        return Dataset(name, **{column: values}, **beside.tensors(), names=beside.names, absent=beside.absent)
    images = ImageArray(source, array)
    for key, values in targets.items():
        try:
            return ArrayRows(name, images, beside, ImageArray(f"{path}: {key}", values))
        except InputError as error:
            beside.absent[key] = str(error).removeprefix(f"{path}: ")
    return ArrayRows(name, images, beside)


def _sample_key(path: Path, found: np.lib.npyio.NpzFile) -> str:
    """A usual name of images, else of a column, else the only array with three axes or more, or the only with two."""
    usual = (*IMAGE_KEYS, *(name for name in COLUMNS if name != "attributes"))
    for key in usual:
        if key in found.files:
            return key
    others = {*LABEL_KEYS, NAMES_KEY, "attributes", "targets"}
    ranks = {key: found[key].ndim for key in found.files if key not in others}
    for usable in ([k for k, n in ranks.items() if n >= 3], [k for k, n in ranks.items() if n == 2]):
        if len(usable) == 1:
            return usable[0]
    raise InputError(
        f"{path}: holds the arrays {', '.join(found.files) or 'none'}; name the samples one of {', '.join(usual)}"
    )


def _beside(found: np.lib.npyio.NpzFile, used: set[str], count: int) -> tuple[Companions, dict[str, np.ndarray]]:
    """Labels and further columns of ``count`` samples; the array of targets where there is one."""
    beside, targets, names = Companions(), {}, None
    if NAMES_KEY in found.files:
        with contextlib.suppress(InputError):  # numbers serve where they cannot be read
            names = list(map(str, _read(found, NAMES_KEY).reshape(-1)))
    key = next((key for key in LABEL_KEYS if key in found.files and key not in used), None)
    if key is not None:
        try:
            beside |= labels.from_array(_read(found, key), count, names)
        except InputError as error:
            beside |= labels.without_labels(str(error))
    for column in COLUMNS:
        if column in found.files and column not in used:
            named = column == "attributes" and key is None
            beside |= _column(found, column, count, names if named else None)
    if "targets" in found.files:
        try:
            targets["targets"] = _read(found, "targets")
        except InputError as error:
            beside.absent["targets"] = str(error)
    return beside, targets


def _column(found: np.lib.npyio.NpzFile, key: str, count: int, names: list[str] | None) -> Companions:
    try:
        values = _read(found, key)
        if values.ndim and len(values) != count:
            raise InputError(f"{len(values)} rows for {count} samples")
        values = COLUMNS[key](values)
        return Companions({key: values}, {key: labels.fitting(names, values.shape[1])} if key == "attributes" else {})
    except InputError as error:
        return Companions(absent={key: f"its array {key}: {error}"})


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
