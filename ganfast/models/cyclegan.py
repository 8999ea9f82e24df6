"""CycleGAN's networks (Zhu et al. 2017, arXiv:1703.10593, 7.2) with the state_dict keys of the authors' code."""

from torch import Tensor, nn

from ganfast.models import norms
from ganfast.models.antialias import Down, Up
from ganfast.models.dcgan import initialize
from ganfast.nn import FusedSequential


class ResidualBlock(nn.Module):
    """x [B, C, H, W] → x + two reflection-padded 3×3 convolutions with InstanceNorm, ReLU between them."""

    def __init__(self, width: int):
        super().__init__()
        self.conv_block = FusedSequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Generator(nn.Module):
    """images [B, in, H, W] → images [B, out, H, W] in (−1, 1); H and W are multiples of 4.

    ``antialiased``, it blurs before it subsamples and interpolates on the way up, as CUT's authors' code does.
    """

    def __init__(
        self, inside: int = 3, outside: int = 3, width: int = 64, blocks: int = 9, antialiased: bool = False
    ):  # fmt: skip
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(inside, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
        for features in (2 * width, 4 * width):
            down = nn.Conv2d(features // 2, features, 3, 1 if antialiased else 2, 1)
            layers += [down, nn.InstanceNorm2d(features), nn.ReLU(), *([Down(features)] if antialiased else [])]
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for features in (2 * width, width):
            if antialiased:
                layers += [Up(2 * features), nn.Conv2d(2 * features, features, 3, 1, 1)]
            else:
                layers += [nn.ConvTranspose2d(2 * features, features, 3, 2, 1, output_padding=1)]
            layers += [nn.InstanceNorm2d(features), nn.ReLU()]
        self.model = FusedSequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, outside, 7), nn.Tanh())
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class PatchDiscriminator(nn.Module):
    """images [B, C, H, W] → scores [B, 1, H', W'], one for each patch (Isola et al. 2017); 70×70 with three layers."""

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3, norm: norms.Norm = "instance"):
        super().__init__()
        found = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        features = width
        for k in range(1, layers + 1):
            after = width * min(2**k, 8)
            down = nn.Conv2d(features, after, 4, 2 if k < layers else 1, 1, bias=norm == "instance")
            found += [down, norms.layer(norm, after), nn.LeakyReLU(0.2)]
            features = after
        self.model = FusedSequential(*found, nn.Conv2d(features, 1, 4, 1, 1))
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)
