"""CIFAR-10 and CIFAR-100 as their authors pack them: pickles, read without running any code in them."""

import pickle
from pathlib import PurePosixPath

import numpy as np

from ganfast.data import labels, splits
from ganfast.data.arrays import ArrayRows, ImageArray
from ganfast.data.options import DataOptions
from ganfast.data.trees import Tree
from ganfast.errors import InputError

LABELS = ("labels", "fine_labels")
NAMES = ("label_names", "fine_label_names")


def sets(tree: Tree) -> dict[str, list[str]]:
    """Files of each part: data_batch_1 … and test_batch of CIFAR-10, train and test of CIFAR-100."""
    by_name = {PurePosixPath(name).name: name for name in tree.names}
    train = [by_name[f"data_batch_{k}"] for k in range(1, 6) if f"data_batch_{k}" in by_name]
    if train:
        return {"train": train} | ({"test": [by_name["test_batch"]]} if "test_batch" in by_name else {})
    if {"train", "test", "meta"} <= set(by_name):
        return {"train": [by_name["train"]], "test": [by_name["test"]]}
    return {}


def open_sets(tree: Tree, found: dict[str, list[str]], options: DataOptions) -> ArrayRows:
    """RGB images [N, 32, 32, 3] of one part, with their classes' names."""
    chosen, notes = splits.choose(tree.source, found, options.split)
    batches = [read(tree, name) for name in found[chosen]]
    pixels = np.concatenate([_pixels(f"{tree.source}/{name}", each) for name, each in zip(found[chosen], batches)])
    ids = [label for each in batches for label in each.get(next((key for key in LABELS if key in each), ""), [])]
    meta = next((n for n in tree.names if PurePosixPath(n).name in ("batches.meta", "meta")), None)
    about = read(tree, meta) if meta else {}
    names = next((about[key] for key in NAMES if isinstance(about.get(key), list)), None)
    rows = ArrayRows(tree.name, ImageArray(tree.source, pixels), labels.from_array(np.array(ids), len(pixels), names))
    rows.notes += notes
    return rows


def _pixels(source: str, batch: dict) -> np.ndarray:
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(f"{source}: holds no data [N, 3072] of uint8, so it is no batch of CIFAR")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def read(tree: Tree, name: str) -> dict:
    """The dictionary in a pickle: of strings, numbers, lists and arrays of bytes, and nothing else."""
    source = f"{tree.source}/{name}"
    try:
        with tree.open(name) as file:
            found = _plain(_Reader(file, encoding="bytes").load())
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except Exception as error:  # what a damaged pickle raises: UnpicklingError, EOFError, IndexError, KeyError, ...
        raise InputError(f"{source}: a damaged pickle ({error or type(error).__name__}); fetch it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{source}: holds no dictionary, so it is no batch of CIFAR")
    return found


class _Array:
    """In place of a NumPy array: what its pickle says of it, never given to NumPy's own code."""

    state: tuple = ()

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        self.state = state

    def value(self) -> np.ndarray:
        _, shape, dtype, fortran, content = self.state
        if not isinstance(dtype, _Type) or dtype.word not in ("u1", b"u1") or fortran:
            raise InputError("an array in it is not of bytes")
        return np.frombuffer(bytes(content), np.uint8).reshape(shape).copy()


class _Type:
    """In place of a NumPy dtype."""

    def __init__(self, word="", *_):
        self.word = word

    def __setstate__(self, state):
        pass


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")  # how Python 3 writes bytes for old protocols


class _Reader(pickle.Unpickler):
    """Finds inert stand-ins for the names that arrays of bytes need, and no other name."""

    STAND_INS = {
        ("multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str):
        stand_in = self.STAND_INS.get((module.rpartition(".")[2], name))
        if stand_in is None:
            raise InputError(f"a pickle that asks for {module}.{name}, which could run code; save it as .npz")
        return stand_in


def _plain(value):
    """Text for bytes in keys and names, arrays for their stand-ins."""
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(_plain, value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.value() if isinstance(value, _Array) else value
