"""Earlier states of a network that is being trained."""

import copy

import torch
from torch import Tensor, nn


class Snapshots(nn.Module):
    """``count`` frozen copies of ``network``: x [B, ...] → what each makes of it [count, ...], in evaluation mode."""

    def __init__(self, network: nn.Module, count: int):
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(network) for _ in range(count)).eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.copies])

    @torch.no_grad()
    def keep(self, network: nn.Module, places: Tensor) -> None:
        """``network`` as it is now goes to the copies where ``places`` [count], bool, is true: device operations."""
        now = list(network.state_dict().values())
        for chosen, kept in zip(places.unbind(), self.copies):
            for old, new in zip(kept.state_dict().values(), now):
                old.copy_(torch.where(chosen, new, old))
