"""A picture as a network: its parameters are pixels."""

import torch
from torch import Tensor, nn


class Change(nn.Module):
    """Images [B, C, H, W] → images + ``pixels`` [1, C, H, W], which begin at 0."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.pixels = nn.Parameter(torch.zeros(1, *shape))

    def forward(self, images: Tensor) -> Tensor:
        return images + self.pixels
