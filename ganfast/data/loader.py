"""From a sampler's rows to batches on the device, in memory that stays where it is."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor

from ganfast.data.sampler import Sampler, decode


class Loader:
    """The real batches of training steps, ``per_step`` at a time, in static buffers on the device.

    ``load()`` brings those of the next step; ``batch(k)`` makes the k-th by operations on the device alone, so that a
    CUDA graph may hold it. Columns of at most ``resident`` bytes in all live on the device and only indices are sent;
    of larger ones the rows themselves. On a GPU a thread prepares the step after in pinned memory and sends it on a
    stream of its own, while this step runs.

    Args:
        sampler: its ``position`` counts the rows that were loaded; assigning it resumes exactly.
        columns: the data set's columns that are wanted; all of them by default.
        share: (rank, ranks): of each batch only the rows of this rank, batch/ranks of them.
    """

    def __init__(
        self,
        sampler: Sampler,
        per_step: int,
        device: torch.device,
        resident: int = 2**30,
        share: tuple[int, int] = (0, 1),
        columns: Iterable[str] | None = None,
    ):
        self.sampler, self.per_step, self.device = sampler, per_step, device
        rank, ranks = share
        size = sampler.batch // ranks
        self.rows = slice(rank * size, (rank + 1) * size)
        held = sampler.source.columns
        self.columns = {name: held[name] for name in (held if columns is None else columns)}
        self.resident = sum(values.nbytes for values in self.columns.values()) <= resident
        self.on_device = {name: v.to(device) for name, v in self.columns.items()} if self.resident else {}
        seen = sampler.dataset.columns
        shapes = {name: (seen[name].shape[1:], values.dtype) for name, values in self.columns.items()}
        corners = {"corners": ((2,), torch.int64)} if sampler.window else {}
        self.buffers = {  # flips, and indices into the columns and corners of crops, or the rows themselves
            name: torch.zeros(per_step, size, *shape, dtype=dtype, device=device)
            for name, (shape, dtype) in {
                "flips": ((), torch.bool), **({"rows": ((), torch.int64), **corners} if self.resident else shapes)
            }.items()
        }  # fmt: skip
        self.waited = 0.0
        """seconds spent in load(): how long steps waited for their data"""
        self._slots = [_Slot(self.buffers), _Slot(self.buffers)] if device.type == "cuda" else []
        self._thread = ThreadPoolExecutor(1, "ganfast-loader") if self._slots else None
        self._ahead = None  # (position, future) of what the thread prepares
        self._sender = torch.cuda.Stream(device) if self._slots else None

    @property
    def position(self) -> int:
        return self.sampler.position

    @position.setter
    def position(self, value: int) -> None:
        self.sampler.position = value

    def load(self) -> None:
        """Bring the batches at ``position``, which goes on past them; where that fails it stays."""
        began = time.perf_counter()
        start, after = self.position, self.position + self.per_step * self.sampler.batch
        if self._slots:
            if self._ahead is None or self._ahead[0] != start:  # the first, or position was assigned
                self._prepare(start)
            (_, prepared), self._ahead = self._ahead, None
            prepared.result().deliver(self.buffers)
            self._prepare(after)
        else:
            self._gather(start, self.buffers)
        self.position = after
        self.waited += time.perf_counter() - began

    def batch(self, k: int) -> dict[str, Tensor]:
        """The k-th batch of the step: its columns on the device, as :func:`decode` makes them."""
        flips = self.buffers["flips"][k] if self.sampler.flip else None
        if self.resident:
            rows, corners = self.buffers["rows"][k], self.buffers["corners"][k] if self.sampler.window else None
            found = {name: self.sampler.take(name, values, rows, corners) for name, values in self.on_device.items()}
        else:
            found = {name: self.buffers[name][k] for name in self.columns}
        return {name: decode(name, values, flips) for name, values in found.items()}

    def _prepare(self, position: int) -> None:
        """Have the thread fill the slot that was delivered longest ago and send it."""
        if self._ahead:
            wait([self._ahead[1]])  # its error, if it has one, is of batches that nobody asks for any more
        slot = self._slots[0]
        self._slots.reverse()

        def work():
            slot.arrived.synchronize()  # what it last held has left the host's memory
            self._gather(position, slot.host)
            slot.send(self._sender)
            return slot

        self._ahead = position, self._thread.submit(work)

    def _gather(self, position: int, buffers: dict[str, Tensor]) -> None:
        """Write this rank's rows from ``position`` on into buffers in the host's memory."""
        drawn = self.sampler.draw(position, self.per_step * self.sampler.batch)
        rows, flips, corners = (
            each.view(self.per_step, self.sampler.batch, *each.shape[1:])[:, self.rows] for each in drawn
        )
        if self.resident:
            buffers["rows"].copy_(rows)
            if self.sampler.window:
                buffers["corners"].copy_(corners)
        else:
            for name, values in self.columns.items():
                into = buffers[name].flatten(0, 1)
                if into.shape[1:] == values.shape[1:]:
                    torch.index_select(values, 0, rows.reshape(-1), out=into)
                else:
                    into.copy_(self.sampler.take(name, values, rows.reshape(-1), corners.flatten(0, 1)))
        buffers["flips"].copy_(flips)


class _Slot:
    """One step's batches on their way: pinned memory of the host, and where they arrive on the GPU."""

    def __init__(self, buffers: dict[str, Tensor]):
        self.host = {name: torch.empty(b.shape, dtype=b.dtype, pin_memory=True) for name, b in buffers.items()}
        self.there = {name: torch.empty_like(b) for name, b in buffers.items()}
        self.arrived, self.taken = torch.cuda.Event(blocking=True), torch.cuda.Event()

    def send(self, stream: torch.cuda.Stream) -> None:
        with torch.cuda.stream(stream):
            stream.wait_event(self.taken)
            for name, there in self.there.items():
                there.copy_(self.host[name], non_blocking=True)
            self.arrived.record(stream)

    def deliver(self, buffers: dict[str, Tensor]) -> None:
        current = torch.cuda.current_stream()
        current.wait_event(self.arrived)
        for name, there in self.there.items():
            buffers[name].copy_(there)
        self.taken.record(current)
