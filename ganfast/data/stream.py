"""Endless batches in a seeded order."""

import numpy as np
import torch

from ganfast.data.dataset import Dataset
from ganfast.errors import InputError

RESIDENT = 2**30  # bytes of uint8 up to which the whole data set lives on the GPU
TO_UNIT = float(np.float32(1 / 127.5))  # multiplying gives the same bits on every device; 255 becomes exactly 1


class Stream:
    """Batches without end: each epoch visits every sample once, in an order of its own; batches run across epochs.

    A batch depends on (seed, position) alone, so that assigning ``position`` resumes exactly.

    Args:
        dataset: where samples come from; of a memory-mapped one only the rows of a batch are read.
        batch: samples a batch, at most ``len(dataset)``.
        seed: any int; with the epoch it seeds the order and the flips.
        flip: mirror each image left to right with probability 1/2.
        device: where batches are made.
    """

    def __init__(self, dataset: Dataset, batch: int, seed: int, flip: bool = False, device: torch.device | str = "cpu"):
        if not 1 <= batch <= len(dataset):
            raise InputError(f"--batch {batch}: {dataset.name} has {len(dataset)} samples; use 1 to {len(dataset)}")
        if flip and dataset.kind == "points":
            raise InputError(f"flip: {dataset.name} holds points, and only images can be mirrored; leave it out")
        self.batch, self.seed, self.flip = batch, seed, flip
        self.device = torch.empty(0, device=device).device  # "cuda" is now cuda:0, as tensors say it
        self.position = 0
        self._images = dataset.kind == "images"
        self._samples = dataset.samples
        if self.device.type == "cuda" and dataset.samples.nbytes < RESIDENT:
            self._samples = dataset.samples.to(self.device)
        self._orders: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def next(self) -> torch.Tensor:
        """The batch at ``position``, which it advances: float32 on the device.

        Images are [B, C, H, W] in [−1, 1] (x / 127.5 − 1) with channels_last strides; points [B, D] as they are.
        """
        rows, flips = self._draw(self.position)
        self.position += self.batch
        samples = self._samples.index_select(0, rows.to(self._samples.device))
        if samples.device != self.device:
            if self.device.type == "cuda":
                samples = samples.pin_memory()
            samples = samples.to(self.device, non_blocking=True)
        if not self._images:
            return samples
        if self.flip:
            flips = flips.to(self.device).view(-1, 1, 1, 1)
            samples = torch.where(flips, samples.flip(2), samples)  # [B, H, W, C]: axis 2 runs left to right
        return samples.permute(0, 3, 1, 2).float().mul_(TO_UNIT).sub_(1)

    def _draw(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices and flips of the samples start … start + batch − 1, which lie in one epoch or two."""
        count = self._samples.shape[0]
        epochs = range(start // count, (start + self.batch - 1) // count + 1)
        self._orders = {e: self._orders.get(e) or self._order(e) for e in epochs}
        spans = {e: slice(max(start - e * count, 0), start + self.batch - e * count) for e in epochs}
        rows, flips = (torch.cat([self._orders[e][k][spans[e]] for e in epochs]) for k in (0, 1))
        return rows, flips

    def _order(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Order [N] and flips [N] of an epoch, by position within it."""
        words = np.random.SeedSequence((self.seed % 2**64, epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]))
        count = self._samples.shape[0]
        order = torch.randperm(count, generator=generator)
        return order, torch.rand(count, generator=generator) < 0.5
