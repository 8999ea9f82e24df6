"""Stacked images: three grey ones as the channels of one, the mode-coverage protocol of Metz et al. 2017 and PacGAN."""

import numpy as np
import torch

from ganfast.data.dataset import Dataset
from ganfast.errors import InputError

PREFIX = "stacked:"
ROWS = 128_000  # of PacGAN (Lin et al. 2018, section 4.2)
STRETCH = 8192  # rows at once


def stacked(base: Dataset, rows: int = ROWS) -> Dataset:
    """``rows`` images uint8 [rows, H, W, 3], each channel a row of ``base`` drawn uniformly; the same for everyone.

    With K classes in ``base`` there are K³, (a·K + b)·K + c for channels of the classes a, b, c; of digits they are
    named "000" to "999". InputError where ``base`` has no labelled grey images.
    """
    if base.kind != "images" or base.shape[0] != 1 or base.labels is None:
        why = f" ({base.absent['labels']})" if "labels" in base.absent else ""
        raise InputError(f"{PREFIX}{base.name}: needs grey images with labels{why}; give MNIST, for example")
    random = np.random.RandomState(0)  # its stream is the one that numpy promises never to change
    index = torch.from_numpy(random.randint(len(base), size=(rows, 3), dtype=np.int64))
    grey = base.samples[..., 0]
    images = torch.empty(rows, *grey.shape[1:], 3, dtype=torch.uint8)
    for start in range(0, rows, STRETCH):
        part = index[start : start + STRETCH]
        images[start : start + STRETCH] = grey[part.flatten()].unflatten(0, part.shape).movedim(1, 3)
    classes = base.num_classes
    own = base.names["labels"]
    between = "" if all(len(name) == 1 for name in own) else "-"
    labels = base.labels[index] @ torch.tensor([classes**2, classes, 1])
    names = tuple(between.join((a, b, c)) for a in own for b in own for c in own)
    return Dataset(f"stacked-{base.name}", images=images, labels=labels, names={"labels": names}, notes=base.notes)
