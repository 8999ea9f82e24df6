"""Mixtures of Gaussians in the plane, the mode-coverage protocol of PacGAN (Lin et al. 2018, section 4.1)."""

import math

import numpy as np
import torch

from ganfast.data.dataset import Dataset
from ganfast.errors import InputError

POINTS = 100_000

_RING = [(math.cos(math.pi * k / 4), math.sin(math.pi * k / 4)) for k in range(8)]
_GRID = [(float(x), float(y)) for x in range(-4, 5, 2) for y in range(-4, 5, 2)]

#: name → (centres float32 [modes, 2], standard deviation)
MODES = {"ring8": (torch.tensor(_RING), 0.01), "grid25": (torch.tensor(_GRID), 0.05)}


def gaussians(name: str) -> Dataset:
    """100,000 points, each from a mode drawn uniformly; the same for everyone; labels are the modes."""
    if name not in MODES:
        raise InputError(f"gaussians:{name}: no such mixture; there are {', '.join('gaussians:' + n for n in MODES)}")
    centres, std = MODES[name]
    random = np.random.RandomState(0)  # its stream is the one that numpy promises never to change
    labels = torch.from_numpy(random.randint(len(centres), size=POINTS, dtype=np.int64))
    noise = torch.from_numpy(random.standard_normal((POINTS, 2)).astype(np.float32))
    return Dataset(f"gaussians-{name}", points=centres[labels] + std * noise, labels=labels)
