"""Historical averaging (Salimans et al. 2016, section 3.3, arXiv:1606.03498)."""

import torch
from torch import Tensor

from ganfast.training.gradients import FlatGradients


class History:
    """The mean θ̄ of some parameters over all updates so far, and the gradient of λ·‖θ − θ̄‖², which pulls towards it."""

    def __init__(self, gradients: FlatGradients, weight: float):
        self.gradients, self.weight = gradients, weight
        self.means = [torch.zeros_like(parameter) for parameter in gradients.parameters]
        self.count = gradients.buffer.new_zeros(())

    @torch.no_grad()
    def pull(self, scale: Tensor | None) -> None:
        """Before an update: θ counts into θ̄, and 2λ·(θ − θ̄), times the loss scale, is added to the gradients."""
        values = self.gradients.parameters
        self.count += 1
        torch._foreach_lerp_(self.means, values, [1 / self.count] * len(values))
        apart = torch._foreach_sub(values, self.means)
        if scale is not None:
            torch._foreach_mul_(apart, scale)
        torch._foreach_add_(self.gradients.views, apart, alpha=2 * self.weight)

    def state_dict(self) -> dict:
        return {"means": self.means, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        for mean, saved in zip(self.means, state["means"], strict=True):
            mean.copy_(saved)
        self.count.copy_(state["count"])
