"""A pool of earlier fakes (Shrivastava et al. 2017, arXiv:1612.07828), in static memory on the device."""

import torch
from torch import Tensor

from ganfast.errors import InputError


def draw_from_pool(t, pool: Tensor, count: Tensor, fakes: Tensor) -> Tensor:
    """``fakes`` [B, ...], each with probability 1/2 exchanged for an earlier one; ``pool`` [P, ...] holds ``count``.

    While there is room all are stored and returned. Later each either stays as it is or changes places with one of the
    pool. Several processes have one pool, that of the whole batch. In place, by device operations alone.
    """
    whole, drawn = t.gather(fakes).to(pool.dtype), t.gather(t.uniform(2))
    size = len(whole)
    if size > len(pool):
        raise InputError(f"pool must be at least the batch, {size}, got {len(pool)} (--pool).")
    room = count + size <= len(pool)
    start = torch.where(room, count, (drawn[0, 0] * count).long())
    slots = (start + torch.arange(size, device=pool.device)) % (count + size * room)  # all different
    earlier = pool.index_select(0, slots)
    swaps = (drawn[:, 1] < 0.5) & ~room
    shape = -1, *[1] * (pool.dim() - 1)
    result = torch.where(swaps.view(shape), earlier, whole)
    pool.index_copy_(0, slots, torch.where((swaps | room).view(shape), whole, earlier))
    count += size * room
    return t.mine(result)
