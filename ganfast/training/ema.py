"""Exponential moving averages of networks."""

import torch
from torch import Tensor, nn

STATISTICS = ("running_mean", "running_var")


class Average:
    """Keeps ``average`` (a copy of ``model``) at the exponential moving average of its parameters and statistics.

    After step t the decay is min(decay, (1 + t) / (10 + t)), so that the start is forgotten quickly. Any other tensor
    is copied: the mean of spectral norm's vectors, whose signs may turn, would be shorter than 1 and give a wrong σ.
    """

    def __init__(self, average: nn.Module, model: nn.Module, decay: float):
        self.decay = decay
        kept, values = (network.state_dict(keep_vars=True) for network in (average, model))
        smooth = [k for k, v in kept.items() if isinstance(v, nn.Parameter) or k.rpartition(".")[2] in STATISTICS]
        others = sorted(kept.keys() - set(smooth))
        self.averages, self.values = ([each[k] for k in smooth] for each in (kept, values))
        self.copies = tuple([each[k] for k in others] for each in (kept, values))

    @torch.no_grad()
    def update(self, step: Tensor) -> None:
        """``step``: how many updates there were, this one included; a scalar on the models' device."""
        weight = 1 - ((1 + step) / (10 + step)).clamp(max=self.decay)
        weights = [weight.to(average.dtype) for average in self.averages]
        torch._foreach_lerp_(self.averages, self.values, weights)
        if self.copies[0]:
            torch._foreach_copy_(*self.copies)
