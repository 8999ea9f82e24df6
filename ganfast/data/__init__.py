"""Data sets: open one from where it lies, pack it once, draw endless seeded batches from it.

``open_dataset(source)`` reads ``digits``, ``gaussians:ring8``, ``gaussians:grid25``, a folder or .zip of images, IDX
files, .npy/.npz arrays and packed .safetensors files; ``pack`` writes the last; ``Stream`` feeds training.
"""

from ganfast.data.dataset import Dataset
from ganfast.data.sources import open_dataset, pack
from ganfast.data.stream import Stream

__all__ = ["Dataset", "Stream", "open_dataset", "pack"]
