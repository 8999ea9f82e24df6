"""Simulated users: whom a picture pleases is a random linear function of its colours, its contrast and its class."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast.data.dataset import Dataset
from ganfast.errors import InputError

PREFIX = "users:"
SHARPNESS = 4.0  # standard deviation of a user's logits
SHARE = 0.1  # of the pictures have a logit above 0
HELD_OUT = 0.1  # of the interactions
SMALLEST = 1e-6


def users(base: Dataset, count: int) -> Dataset:
    """``base`` with attributes u [N, count] of ``count`` simulated users; the same for everyone.

    u[i, k] is 1 where user k chose picture i, −1 where such a choice is held out for a test, 0 elsewhere. Choices are
    drawn with the probability σ(``tastes``).
    """
    if base.kind != "images":
        raise InputError(f"{PREFIX}{count}:{base.name}: holds {base.kind}, and users look at images; give images")
    random = np.random.RandomState(1)  # its stream is the one that numpy promises never to change
    likely = tastes(base, count)(base.samples, base.labels).sigmoid()
    chosen, held_out = (torch.from_numpy(random.uniform(size=likely.shape)) for _ in range(2))
    u = (chosen < likely).float()
    u[(held_out < HELD_OUT) & (u == 1)] = -1
    names = {**base.names, "attributes": tuple(f"user {k}" for k in range(count))}
    note = f"{base.name} has no users: {count} are simulated, by random tastes for colour, contrast and class."
    columns = base.columns | {"attributes": u}
    return Dataset(f"users-{base.name}", names=names, notes=(note,), **columns)


def tastes(data: Dataset, count: int) -> Callable[[Tensor, Tensor | None], Tensor]:
    """images uint8 [N, H, W, C], labels [N] → logits [N, count], standardised over the pictures of ``data``."""
    classes = data.num_classes
    found = describe(data.samples, data.labels, classes)
    mean, deviation = found.mean(0), found.std(0).clamp_min(SMALLEST)
    weights = torch.from_numpy(np.random.RandomState(0).normal(size=(found.shape[1], count))).float()
    pleased = (found - mean) / deviation @ weights
    middle, spread = pleased.quantile(1 - SHARE, 0), pleased.std(0).clamp_min(SMALLEST)

    def logits(images: Tensor, labels: Tensor | None) -> Tensor:
        pleased = (describe(images, labels, classes) - mean) / deviation @ weights
        return SHARPNESS * (pleased - middle) / spread

    return logits


def describe(images: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """fp32 [N, C + 1 + classes]: mean colour and contrast of the middle half of a picture, and its class."""
    height, width = images.shape[1:3]
    middle = images[:, height // 4 : height - height // 4, width // 4 : width - width // 4].flatten(1, 2).float() / 255
    found = [middle.mean(1), middle.mean(2).std(1, keepdim=True)]
    return torch.cat([*found, *([] if labels is None else [F.one_hot(labels, classes)])], 1)
