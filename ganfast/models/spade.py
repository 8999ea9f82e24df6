"""SPADE's networks, after the paper alone (Park et al. 2019, arXiv:1903.07291, section 3 and appendix A)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.models.cyclegan import PatchDiscriminator
from ganfast.nn import SPADEAct

SMALLEST = 4  # pixels of the shorter side where the generator begins
HIDDEN = 128  # features between a map and its scales and shifts, at most


def initialize(network: nn.Module) -> None:
    """In place: weights after Glorot and Bengio 2010, biases 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)


def one_hot(maps: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """int64 [B, H, W] → [B, classes, H, W] of 0 and 1."""
    return (maps[:, None] == torch.arange(classes, device=maps.device)[:, None, None]).to(dtype)


class ResidualBlock(nn.Module):
    """[B, inside, H, W] → [B, outside, H, W]: twice SPADE and a 3×3 convolution, once beside where widths differ."""

    def __init__(self, inside: int, outside: int, classes: int, hidden: int):
        super().__init__()
        self.norms = nn.ModuleList(SPADEAct(width, classes, hidden) for width in (inside, outside))
        self.convs = nn.ModuleList(nn.Conv2d(width, outside, 3, padding=1) for width in (inside, outside))
        self.beside = None
        if inside != outside:
            self.beside = nn.ModuleList([SPADEAct(inside, classes, hidden), nn.Conv2d(inside, outside, 3, padding=1)])

    def forward(self, x: Tensor, maps: Tensor) -> Tensor:
        y = x if self.beside is None else self.beside[1](self.beside[0](x, maps))
        for norm, conv in zip(self.norms, self.convs):
            x = conv(norm(x, maps))
        return x + y


class Generator(nn.Module):
    """maps int64 [B, H, W] of classes and z [B, noise] or None → images [B, channels, H, W] in (−1, 1).

    Begins with a linear layer of z or, without noise, with a convolution of the map of ``SMALLEST`` pixels; blocks of
    16·width, …, width features, and nearest upsampling between them.
    """

    def __init__(self, size: tuple[int, int], classes: int, channels: int = 3, width: int = 64, noise: int = 256):
        super().__init__()
        self.classes = classes
        doublings = (min(size) // SMALLEST).bit_length() - 1
        self.start = tuple(side >> doublings for side in size)
        widths = [width * min(2 ** (doublings - k), 16) for k in range(doublings + 1)]
        if noise:
            self.first = nn.Linear(noise, widths[0] * self.start[0] * self.start[1])
        else:
            self.first = nn.Conv2d(classes, widths[0], 3, padding=1)
        hidden = min(HIDDEN, 2 * width)
        self.blocks = nn.ModuleList(
            ResidualBlock(inside, outside, classes, hidden) for inside, outside in zip([widths[0], *widths], widths)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        initialize(self)

    def forward(self, maps: Tensor, z: Tensor | None = None) -> Tensor:
        maps = one_hot(maps, self.classes, self.last.bias.dtype)
        if z is None:
            x = self.first(F.interpolate(maps, self.start))
        else:
            x = self.first(z).view(len(z), -1, *self.start)
        for k, block in enumerate(self.blocks):
            x = block(F.interpolate(x, scale_factor=2.0) if k else x, maps)
        return self.last(F.leaky_relu(x, 0.2)).tanh()


class Discriminators(nn.Module):
    """(images [B, C, H, W], maps int64 [B, H, W]) → for each scale [activations of each layer, …, scores [B, 1, h, w]].

    Patch discriminators of images and maps side by side, each at half the size of the one before (Wang et al. 2018,
    arXiv:1711.11585).
    """

    def __init__(self, channels: int, classes: int, width: int = 64, layers: int = 3, scales: int = 2):
        super().__init__()
        self.classes = classes
        self.scales = nn.ModuleList(PatchDiscriminator(channels + classes, width, layers) for _ in range(scales))

    def forward(self, images: Tensor, maps: Tensor) -> list[list[Tensor]]:
        x, found = torch.cat([images, one_hot(maps, self.classes, images.dtype)], 1), []
        for k, network in enumerate(self.scales):
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False) if k else x
            y, seen = x, []
            for layer in network.model:
                y = layer(y)
                seen += [y] if isinstance(layer, nn.LeakyReLU) else []
            found.append([*seen, y])
        return found
