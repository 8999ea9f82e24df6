"""Endless batches in a seeded order."""

import numpy as np
import torch
from torch import Tensor

from ganfast.data.dataset import Dataset
from ganfast.errors import InputError

TO_UNIT = float(np.float32(1 / 127.5))  # multiplying gives the same bits on every device; 255 becomes exactly 1


def decode(samples: Tensor, flips: Tensor | None = None) -> Tensor:
    """uint8 images [B, H, W, C] → float32 [B, C, H, W] in [−1, 1] (x / 127.5 − 1) with channels_last strides.

    ``flips`` bool [B] on the same device: which to mirror left to right. Points [B, D] stay as they are.
    """
    if samples.dtype != torch.uint8:
        return samples
    if flips is not None:  # axis 2 runs left to right
        samples = torch.where(flips.view(-1, 1, 1, 1), samples.flip(2), samples)
    return samples.permute(0, 3, 1, 2).float().mul_(TO_UNIT).sub_(1)


class Stream:
    """Batches without end: each epoch visits every sample once, in an order of its own; batches run across epochs.

    A batch depends on (seed, position) alone, so that assigning ``position`` resumes exactly.

    Args:
        dataset: where samples come from; of a memory-mapped one only the rows of a batch are read.
        batch: samples a batch, at most ``len(dataset)``.
        seed: any int; with the epoch it seeds the order and the flips.
        flip: mirror each image left to right with probability 1/2.
    """

    def __init__(self, dataset: Dataset, batch: int, seed: int, flip: bool = False):
        if not 1 <= batch <= len(dataset):
            raise InputError(f"--batch {batch}: {dataset.name} has {len(dataset)} samples; use 1 to {len(dataset)}")
        if flip and dataset.kind == "points":
            raise InputError(f"flip: {dataset.name} holds points, and only images can be mirrored; leave it out")
        self.dataset, self.batch, self.seed, self.flip = dataset, batch, seed, flip
        self.position = 0
        self._orders: dict[int, tuple[Tensor, Tensor]] = {}

    def next(self) -> Tensor:
        """The batch at ``position``, which it advances: float32, as :func:`decode` makes it."""
        rows, flips = self.draw(self.position, self.batch)
        self.position += self.batch
        return decode(self.dataset.samples.index_select(0, rows), flips if self.flip else None)

    def draw(self, start: int, size: int) -> tuple[Tensor, Tensor]:
        """Indices [size] and flips [size] of the samples from position ``start`` on, whatever epochs they lie in."""
        count = len(self.dataset)
        epochs = range(start // count, (start + size - 1) // count + 1)
        self._orders = {e: self._orders.get(e) or self._order(e) for e in epochs}
        spans = {e: slice(max(start - e * count, 0), start + size - e * count) for e in epochs}
        rows, flips = (torch.cat([self._orders[e][k][spans[e]] for e in epochs]) for k in (0, 1))
        return rows, flips

    def _order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Order [N] and flips [N] of an epoch, by position within it."""
        words = np.random.SeedSequence((self.seed % 2**64, epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]))
        count = len(self.dataset)
        order = torch.randperm(count, generator=generator)
        return order, torch.rand(count, generator=generator) < 0.5
