"""Networks that are given a class beside their input, by concatenation (Mirza and Osindero 2014, arXiv:1411.1784)."""

import torch
from torch import Tensor, nn


def one_hot(classes: Tensor, count: int) -> Tensor:
    """int64 [B] → fp32 [B, count], by device operations alone."""
    return (classes.unsqueeze(1) == torch.arange(count, device=classes.device)).float()


class ConditionalGenerator(nn.Module):
    """z [B, n], y int64 [B] → network([z; one_hot(y)]); the network takes vectors of n + classes numbers."""

    def __init__(self, network: nn.Module, classes: int):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.network(torch.cat([z, one_hot(y, self.classes).to(z.dtype)], 1))


class ConditionalDiscriminator(nn.Module):
    """images [B, C, H, W], y int64 [B] → network of C + classes channels: the class is a constant map of ones."""

    def __init__(self, network: nn.Module, classes: int):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        maps = one_hot(y, self.classes).to(images.dtype)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        return self.network(torch.cat([images, maps], 1))
