"""Endless batches of rows in a seeded order, and what a network sees of them."""

import numpy as np
import torch
from torch import Tensor

from ganfast.data.columns import COLUMNS
from ganfast.data.dataset import Dataset, pictures_of
from ganfast.errors import InputError

TO_UNIT = float(np.float32(1 / 127.5))  # multiplying gives the same bits on every device; 255 becomes exactly 1


def decode(column: str, values: Tensor, flips: Tensor | None = None) -> Tensor:
    """Rows of a data set's ``column`` as a network sees them, without an alias of ``values`` where it is changed.

    Images: uint8 [B, H, W, C] → float32 [B, C, H, W] in [−1, 1] (x / 127.5 − 1) with channels_last strides; ``flips``
    bool [B] on the same device: which to mirror left to right. Clips: uint8 [B, T, H, W, C] → float32 [B, C, T, H, W].
    Maps: uint8 [B, H, W, 1] → int64 [B, H, W].
    Audio: [B, T] → float32 [B, 1, T], int16 over 32768. All else stays as it is.
    """
    kind = COLUMNS[column][0]
    if kind in ("images", "maps", "clips"):
        if flips is not None:  # the last axis but one runs left to right
            mask = flips.view(-1, *[1] * (values.dim() - 1))
            values = torch.where(mask, values.flip(values.dim() - 2), values)
        if kind == "maps":
            return values.squeeze(3).long()
        values = values.permute(0, 3, 1, 2) if kind == "images" else values.permute(0, 4, 1, 2, 3)
        return values.float().mul_(TO_UNIT).sub_(1)
    if kind == "audio":
        values = values.unsqueeze(1)
        return values / 32768 if values.dtype == torch.int16 else values
    return values


def crops(values: Tensor, rows: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    """[B, height, width, C] of ``rows`` [B] of values [N, H, W, C], each from its corner (top, left) of [B, 2] on.

    Indices alone: a CUDA graph may hold it, and pixels beside the crops are not read.
    """
    down = corners[:, :1] + torch.arange(height, device=values.device)
    across = corners[:, 1:] + torch.arange(width, device=values.device)
    return values[rows.view(-1, 1, 1), down.unsqueeze(2), across.unsqueeze(1)]


def drawn(dataset: Dataset, count: int | None = None) -> Tensor:
    """``count`` rows, or all, in an order of chance by a fixed seed: the same for everyone."""
    return torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]


class Sampler:
    """Batches without end: each epoch visits every row once, in an order of its own; batches run across epochs.

    A batch depends on (seed, position) alone, so that assigning ``position`` resumes exactly.

    Args:
        dataset: where rows come from; of a memory-mapped one only those of a batch are read.
        batch: rows a batch, at most ``len(dataset)``.
        seed: any int; with the epoch it seeds the order and the flips.
        flip: mirror each row's images left to right, all of them alike, with probability 1/2.
        crop: of a data set whose pictures are cropped, take each row's at a place of chance instead of the centre, all
            of them alike.
    """

    def __init__(self, dataset: Dataset, batch: int, seed: int, flip: bool = False, crop: bool = False):
        if not 1 <= batch <= len(dataset):
            raise InputError(f"--batch {batch}: {dataset.name} has {len(dataset)} samples; use 1 to {len(dataset)}")
        if flip and dataset.kind not in ("images", "clips"):
            raise InputError(
                f"flip: {dataset.name} holds {dataset.kind}, and only images can be mirrored; leave it out"
            )
        self.dataset, self.batch, self.seed, self.flip = dataset, batch, seed, flip
        self.pictures = pictures_of(dataset)
        self.window = None  # (height, width) of crops at random places
        if crop and dataset.whole is not None:
            self.window, self.room = (each.columns[self.pictures[0]].shape[1:3] for each in (dataset, dataset.whole))
        self.position = 0
        self._orders: dict[int, tuple[Tensor, ...]] = {}

    @property
    def source(self) -> Dataset:
        """What rows are taken from."""
        return self.dataset.whole if self.window else self.dataset

    def next(self) -> dict[str, Tensor]:
        """The batch at ``position``, which it advances: every column, as :func:`decode` makes it."""
        rows, flips, corners = self.draw(self.position, self.batch)
        self.position += self.batch
        flips = flips if self.flip else None
        return {column: decode(column, self.take(column, values, rows, corners), flips)
                for column, values in self.source.columns.items()}  # fmt: skip

    def take(self, column: str, values: Tensor, rows: Tensor, corners: Tensor) -> Tensor:
        """``rows`` of the ``values`` of a column, of pictures their crops, where these are drawn."""
        if self.window and column in self.pictures:
            return crops(values, rows, corners, *self.window)
        return values.index_select(0, rows)

    def draw(self, start: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Indices [size], flips [size] and corners of crops [size, 2] of the rows from position ``start`` on.

        They go on from epoch to epoch.
        """
        count = len(self.dataset)
        epochs = range(start // count, (start + size - 1) // count + 1)
        self._orders = {e: self._orders.get(e) or self._order(e) for e in epochs}
        spans = {e: slice(max(start - e * count, 0), start + size - e * count) for e in epochs}
        rows, flips, corners = (torch.cat([self._orders[e][k][spans[e]] for e in epochs]) for k in range(3))
        return rows, flips, corners

    def _order(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Order [N], flips [N] and corners (top, left) [N, 2] of an epoch, by position within it."""
        words = np.random.SeedSequence((self.seed % 2**64, epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]))
        count = len(self.dataset)
        order = torch.randperm(count, generator=generator)
        flips = torch.rand(count, generator=generator) < 0.5
        if not self.window:
            return order, flips, torch.zeros(count, 0, dtype=torch.int64)
        places = torch.tensor([room - side + 1 for room, side in zip(self.room, self.window)])
        return order, flips, (torch.rand(count, 2, generator=generator, dtype=torch.float64) * places).long()
