"""Means over some steps, read without making the device wait."""

import torch
from torch import Tensor


class Window:
    """A copy of ``sums`` (their last number is how many steps they sum) on its way to the host, and what it is of."""

    def __init__(self, sums: Tensor, step: int, images: int):
        self.step, self.images = step, images
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
        *sums, count = self.host.tolist()
        return [value / max(count, 1) for value in sums]
