"""StarGAN's networks (Choi et al. 2018, arXiv:1711.09020, appendix) with the state_dict keys of the authors' code.

Their instance norms also keep running statistics, which ``translation.load_published`` leaves out.
"""

import torch
from torch import Tensor, nn

SLOPE = 0.01  # of the discriminator's leaky ReLU


def normalised(conv: nn.Module) -> list[nn.Module]:
    """A convolution, InstanceNorm with a scale and a shift, ReLU."""
    return [conv, nn.InstanceNorm2d(conv.out_channels, affine=True), nn.ReLU()]


class ResidualBlock(nn.Module):
    """x [B, C, H, W] → x + two 3×3 convolutions with InstanceNorm, ReLU between them."""

    def __init__(self, width: int):
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, 1, 1, bias=False) for _ in range(2))
        self.main = nn.Sequential(*normalised(first), second, nn.InstanceNorm2d(width, affine=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


def trunk(inside: int, width: int, blocks: int) -> list[nn.Module]:
    """Layers from [B, inside, H, W] to features [B, width, H, W]; H and W are multiples of 4."""
    layers = normalised(nn.Conv2d(inside, width, 7, 1, 3, bias=False))
    for features in (width, 2 * width):
        layers += normalised(nn.Conv2d(features, 2 * features, 4, 2, 1, bias=False))
    layers += [ResidualBlock(4 * width) for _ in range(blocks)]
    for features in (4 * width, 2 * width):
        layers += normalised(nn.ConvTranspose2d(features, features // 2, 4, 2, 1, bias=False))
    return layers


def with_maps(images: Tensor, attributes: Tensor) -> Tensor:
    """images [B, C, H, W], attributes [B, A] → [B, C + A, H, W]: each attribute as a constant map."""
    maps = attributes.to(images.dtype)[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, maps], 1)


class Generator(nn.Module):
    """images [B, C, H, W], attributes [B, A] → images in (−1, 1) of these attributes; H and W are multiples of 4."""

    def __init__(self, channels: int, attributes: int, width: int = 64, blocks: int = 6):
        super().__init__()
        last = nn.Conv2d(width, channels, 7, 1, 3, bias=False)
        self.main = nn.Sequential(*trunk(channels + attributes, width, blocks), last, nn.Tanh())

    def forward(self, images: Tensor, attributes: Tensor) -> Tensor:
        return self.main(with_maps(images, attributes))


class Discriminator(nn.Module):
    """images [B, C, H, W] → (scores [B, 1, h, w] of patches, logits or values [B, A] of attributes).

    Convolutions of stride 2, six at most, until the shorter side is 2 pixels.
    """

    def __init__(self, size: tuple[int, int], channels: int, attributes: int, width: int = 64):
        super().__init__()
        depth = min(min(size).bit_length() - 2, 6)
        layers, inside = [], channels
        for k in range(depth):
            layers += [nn.Conv2d(inside, width * 2**k, 4, 2, 1), nn.LeakyReLU(SLOPE)]
            inside = width * 2**k
        self.main = nn.Sequential(*layers)
        self.conv2 = nn.Conv2d(inside, attributes, [side >> depth for side in size], bias=False)
        self.conv1 = nn.Conv2d(inside, 1, 3, 1, 1, bias=False)  # the last layer is the head, which remedies change

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.main(images)
        return self.conv1(features), self.conv2(features).flatten(1)
