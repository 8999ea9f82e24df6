"""Data sets: open one from where it lies, pack it once, draw endless seeded batches from it.

``open_dataset(source)`` reads ``digits``, ``gaussians:ring8``, ``gaussians:grid25``, a folder or .zip of images, IDX
files, .npy/.npz arrays and packed .safetensors files; ``pack`` writes the last; ``Stream`` gives batches,
``Feed`` brings them to a device for training.
"""

from ganfast.data.dataset import Dataset
from ganfast.data.feed import Feed
from ganfast.data.sources import open_dataset, pack
from ganfast.data.stream import Stream

__all__ = ["Dataset", "Feed", "Stream", "open_dataset", "pack"]
