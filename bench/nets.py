"""Networks of the step benchmarks as a user of plain PyTorch writes them."""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def generator(width: int, latent_dim: int = 100) -> nn.Sequential:
    """DCGAN's, z [B, latent_dim, 1, 1] → [B, 3, 64, 64]."""
    layers, features = [], [latent_dim, 8 * width, 4 * width, 2 * width, width]
    for i, (a, b) in enumerate(pairwise(features)):
        layers.append(nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False))
        layers += [nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())


def discriminator(width: int, batch_norm: bool = True) -> nn.Sequential:
    """DCGAN's, [B, 3, 64, 64] → logits [B, 1, 1, 1]; without BatchNorm it is the critic of a gradient penalty."""
    layers, features = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)], [width, 2 * width, 4 * width, 8 * width]
    for a, b in pairwise(features):
        layers.append(nn.Conv2d(a, b, 4, 2, 1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(b)] if batch_norm else []
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4))


class Block(nn.Module):
    """A residual block that halves the side if asked to; layer normalisation over all of a sample."""

    def __init__(self, features: int, size: int, down: bool):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm([features, size, size]) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv2d(features, features, 3, padding=1) for _ in range(2))
        self.down = nn.AvgPool2d(2) if down else nn.Identity()

    def forward(self, x):
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        return self.down(x) + self.down(h)


class ResNetCritic(nn.Module):
    """The 32×32 critic of Gulrajani et al. 2017: four blocks of `width` features; [B, 3, 32, 32] → [B]."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        sizes = ((32, True), (16, True), (8, False), (8, False))
        self.blocks = nn.Sequential(*(Block(width, size, down) for size, down in sizes))
        self.last = nn.Linear(width, 1)

    def forward(self, x):
        return self.last(F.relu(self.blocks(self.first(x))).mean((2, 3))).flatten()


def initialise(module: nn.Module, seed: int) -> nn.Module:
    """N(0, 0.02²) weights and no biases, the same for the same seed on every device; norms stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                layer.weight.copy_(0.02 * torch.randn(layer.weight.shape, generator=generator))
                if layer.bias is not None:
                    layer.bias.zero_()
    return module


def cost(module: nn.Module, x: torch.Tensor) -> tuple[float, float, float]:
    """(operations, numbers that its convolutions and linear layers read and write, parameters) of module(x).

    Counted on the device "meta": nothing is computed; once for modules that print alike.
    """
    key = str(module), x.shape
    if key not in _counted:
        _counted[key] = _count(copy.deepcopy(module).to("meta"), x.to("meta"))
    return _counted[key]


_counted: dict = {}


def _count(module, x):
    from torch.utils.flop_counter import FlopCounterMode

    numbers = [0]

    def count(layer, inputs, output):
        numbers[0] += inputs[0].numel() + output.numel()

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    for layer in module.modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops(), numbers[0], sum(p.numel() for p in module.parameters())
