"""Means over some steps, read without making the device wait."""

import torch
from torch import Tensor


class Window:
    """A copy of ``sums`` (their last number is how many steps they sum) on its way to the host, and what it is of.

    It sums the steps up to ``step``, in which ``waited`` seconds were spent on waiting for data.
    """

    def __init__(self, sums: Tensor, step: int, images: int, waited: float = 0.0):
        self.step, self.images, self.waited = step, images, waited
        self.host = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=sums.is_cuda)
        self.host.copy_(sums, non_blocking=True)
        self.event = torch.cuda.Event(blocking=True) if sums.is_cuda else None
        if self.event:
            self.event.record()

    def arrived(self) -> bool:
        return self.event is None or self.event.query()

    def means(self) -> list[float]:
        """Waits until the copy has arrived."""
        if self.event:
            self.event.synchronize()
        *sums, self.count = self.host.tolist()
        return [value / max(self.count, 1) for value in sums]
