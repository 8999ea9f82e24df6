"""From a stream of samples to batches on the device, in memory that stays where it is."""

import time
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor

from ganfast.data.stream import Stream, decode


class Feed:
    """The real batches of training steps, ``per_step`` at a time, in static buffers on the device.

    ``load()`` brings those of the next step; ``batch(k)`` makes the k-th by operations on the device alone, so that a
    CUDA graph may hold it. A data set of at most ``resident`` bytes lives on the device and only indices are sent; of a
    larger one the rows themselves. On a GPU a thread prepares the step after in pinned memory and sends it on a stream
    of its own, while this step runs.

    Args:
        stream: its ``position`` counts the samples that were loaded; assigning it resumes exactly.
        share: (rank, ranks): of each batch only the rows of this rank, batch/ranks of them.
    """

    def __init__(
        self,
        stream: Stream,
        per_step: int,
        device: torch.device,
        resident: int = 2**30,
        share: tuple[int, int] = (0, 1),
    ):
        self.stream, self.per_step, self.device = stream, per_step, device
        rank, ranks = share
        size = stream.batch // ranks
        self.rows = slice(rank * size, (rank + 1) * size)
        samples = stream.dataset.samples
        self.resident = samples.nbytes <= resident
        self.samples = samples.to(device) if self.resident else None
        shape, dtype = ((), torch.int64) if self.resident else (samples.shape[1:], samples.dtype)
        self.buffers = [  # indices into the samples, or the samples themselves; and flips
            torch.zeros(per_step, size, *shape, dtype=dtype, device=device),
            torch.zeros(per_step, size, dtype=torch.bool, device=device),
        ]
        self.waited = 0.0
        """seconds spent in load(): how long steps waited for their data"""
        self._slots = [_Slot(self.buffers), _Slot(self.buffers)] if device.type == "cuda" else []
        self._thread = ThreadPoolExecutor(1, "ganfast-feed") if self._slots else None
        self._ahead = None  # (position, future) of what the thread prepares
        self._sender = torch.cuda.Stream(device) if self._slots else None

    @property
    def position(self) -> int:
        return self.stream.position

    @position.setter
    def position(self, value: int) -> None:
        self.stream.position = value

    def load(self) -> None:
        """Bring the batches at ``position``, which goes on past them; where that fails it stays."""
        began = time.perf_counter()
        start, after = self.position, self.position + self.per_step * self.stream.batch
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

    def batch(self, k: int) -> Tensor:
        """The k-th batch of the step: float32 on the device, as :func:`decode` makes it."""
        data, flips = (buffer[k] for buffer in self.buffers)
        samples = self.samples.index_select(0, data) if self.resident else data
        return decode(samples, flips if self.stream.flip else None)

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

    def _gather(self, position: int, buffers: list[Tensor]) -> None:
        """Write this rank's rows from ``position`` on into buffers in the host's memory."""
        drawn = self.stream.draw(position, self.per_step * self.stream.batch)
        rows, flips = (each.view(self.per_step, self.stream.batch)[:, self.rows] for each in drawn)
        data = buffers[0]
        if self.resident:
            data.copy_(rows)
        else:
            torch.index_select(self.stream.dataset.samples, 0, rows.reshape(-1), out=data.flatten(0, 1))
        buffers[1].copy_(flips)


class _Slot:
    """One step's batches on their way: pinned memory of the host, and where they arrive on the GPU."""

    def __init__(self, buffers: list[Tensor]):
        self.host = [torch.empty(b.shape, dtype=b.dtype, pin_memory=True) for b in buffers]
        self.there = [torch.empty_like(b) for b in buffers]
        self.arrived, self.taken = torch.cuda.Event(blocking=True), torch.cuda.Event()

    def send(self, stream: torch.cuda.Stream) -> None:
        with torch.cuda.stream(stream):
            stream.wait_event(self.taken)
            for there, host in zip(self.there, self.host):
                there.copy_(host, non_blocking=True)
            self.arrived.record(stream)

    def deliver(self, buffers: list[Tensor]) -> None:
        current = torch.cuda.current_stream()
        current.wait_event(self.arrived)
        for buffer, there in zip(buffers, self.there):
            buffer.copy_(there)
        self.taken.record(current)
