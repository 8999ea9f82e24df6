"""Data sets: open one from where it lies, pack it once, draw endless seeded batches from it.

``open_dataset(source)`` reads ``digits``, ``gaussians:ring8``, ``gaussians:grid25``, folders and archives of images,
pairs of images, IDX, CIFAR, parquet, .npy, .npz and packed .safetensors files; ``pack`` writes the last. A ``Dataset``
has named columns; recipes ask for them with ``Images``, ``Labels`` and so on. ``Sampler`` draws batches, ``Loader``
brings them to a device.
"""

import importlib

from ganfast.data.columns import (
    Attributes,
    Audio,
    Captions,
    Clips,
    Column,
    Images,
    Labels,
    Maps,
    Points,
    Samples,
    Spec,
    Tokens,
    match,
)
from ganfast.data.dataset import Dataset
from ganfast.data.loader import Loader
from ganfast.data.options import DataOptions
from ganfast.data.sampler import Sampler

__all__ = [
    "Attributes", "Audio", "Captions", "Clips", "Column", "DataOptions", "Dataset", "Images", "Labels", "Loader",
    "Maps", "Points", "Sampler", "Samples", "Spec", "Tokens", "match", "open_dataset", "pack",
]  # fmt: skip


def __getattr__(name: str):
    if name in ("open_dataset", "pack"):  # what reads files needs Pillow and tqdm, which a recipe's columns do not
        return getattr(importlib.import_module("ganfast.data.sources"), name)
    raise AttributeError(f"module 'ganfast.data' has no attribute {name!r}")
