"""Whom a picture pleases, by its pixels."""

import torch
from torch import Tensor, nn


class Preference(nn.Module):
    """images [B, ...] → scores [B, users]: θ_k · f(x), f an ``encoder`` to ``factors`` numbers (Kang et al. 2017)."""

    def __init__(self, encoder: nn.Module, factors: int, users: int):
        super().__init__()
        self.encoder = encoder
        self.users = nn.Parameter(torch.randn(users, factors) / factors**0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images) @ self.users.T
