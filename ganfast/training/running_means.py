"""Means of named figures over some steps, read without making the device wait."""

import torch
from torch import Tensor

CAPACITY = 512  # numbers: more than any recipe has figures


class RunningMeans:
    """Sums of figures on the device, in one buffer that stays where it is.

    Figures that are added together have a part of it, with a count of their own: those of lazy players come at some
    steps only.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32):
        self.buffer = torch.zeros(CAPACITY, dtype=dtype, device=device)
        self.one = torch.ones((), dtype=dtype, device=device)
        self.parts: dict[tuple[str, ...], slice] = {}

    def part(self, names: tuple[str, ...]) -> slice:
        if names not in self.parts:
            start = max((part.stop for part in self.parts.values()), default=0)
            if start + len(names) + 1 > CAPACITY:
                raise ValueError(f"figures: more than {CAPACITY} of them: log fewer")
            self.parts[names] = slice(start, start + len(names) + 1)
        return self.parts[names]

    def add(self, figures: dict[str, Tensor]) -> None:
        """A step's figures, scalars; device operations alone."""
        values = [value.to(self.buffer.dtype) for value in figures.values()]
        self.buffer[self.part(tuple(figures))].add_(torch.stack([*values, self.one]))

    def read(self) -> "Reading":
        """The means so far, on their way to the host."""
        return Reading(self.buffer, dict(self.parts))

    def zero(self) -> None:
        self.buffer.zero_()

    def state_dict(self) -> dict:
        return {"names": [list(names) for names in self.parts], "sums": [self.buffer[p] for p in self.parts.values()]}

    def load_state_dict(self, state: dict) -> None:
        """In place: what a graph writes to stays where it is."""
        self.zero()
        for names, sums in zip(state["names"], state["sums"]):
            self.buffer[self.part(tuple(names))] = sums.to(self.buffer)


class Reading:
    """A copy of the sums of some steps on its way to the host."""

    def __init__(self, buffer: Tensor, parts: dict[tuple[str, ...], slice]):
        self.parts = parts
        self.host = torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=buffer.is_cuda)
        self.host.copy_(buffer, non_blocking=True)
        self.event = torch.cuda.Event(blocking=True) if buffer.is_cuda else None
        if self.event:
            self.event.record()

    def arrived(self) -> bool:
        return self.event is None or self.event.query()

    def means(self) -> dict[str, float]:
        """Figure → mean over the steps that had it; waits until the copy has arrived."""
        if self.event:
            self.event.synchronize()
        totals: dict[str, list[float]] = {}
        for names, part in self.parts.items():
            *sums, count = self.host[part].tolist()
            for name, value in zip(names, sums):
                if count:
                    total = totals.setdefault(name, [0.0, 0.0])
                    total[0] += value
                    total[1] += count
        return {name: value / count for name, (value, count) in totals.items()}
