"""Exponential moving averages of networks."""

import torch
from torch import Tensor, nn


class Average:
    """Keeps ``average`` (a copy of ``model``) at the exponential moving average of its parameters and statistics.

    After step t the decay is min(decay, (1 + t) / (10 + t)), so that the start is forgotten quickly.
    """

    def __init__(self, average: nn.Module, model: nn.Module, decay: float):
        self.decay = decay
        pairs = list(zip(average.state_dict(keep_vars=True).values(), model.state_dict(keep_vars=True).values()))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        # BatchNorm's numbers of batches
        self.counters = list(zip(*(pair for pair in pairs if not pair[0].is_floating_point())))
        self.averages, self.values = [a for a, _ in floats], [v for _, v in floats]

    @torch.no_grad()
    def update(self, step: Tensor) -> None:
        """``step``: how many updates there were, this one included; a scalar on the models' device."""
        weight = 1 - ((1 + step) / (10 + step)).clamp(max=self.decay)
        weights = [weight.to(average.dtype) for average in self.averages]
        torch._foreach_lerp_(self.averages, self.values, weights)
        if self.counters:
            torch._foreach_copy_(*self.counters)
