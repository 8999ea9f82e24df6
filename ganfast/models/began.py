"""BEGAN's networks: a decoder, and an autoencoder that ends in the same (Berthelot et al. 2017, arXiv:1703.10717)."""

from torch import Tensor, nn

from ganfast.models.sizes import Size, doublings, smallest

START = 8  # pixels of the shorter side where the features are smallest


def convolutions(inside: int, outside: int, stride: int = 1) -> list[nn.Module]:
    """Two 3×3 convolutions with ELU; the second one has the stride and the features that follow."""
    return [
        nn.Conv2d(inside, inside, 3, padding=1), nn.ELU(),
        nn.Conv2d(inside, outside, 3, stride, 1), nn.ELU(),
    ]  # fmt: skip


class Decoder(nn.Module):
    """h [B, hidden] → images [B, channels, H, W]: 8×8 of a square, two convolutions and upsampling a stage."""

    def __init__(self, size: Size = 64, channels: int = 3, hidden: int = 64, width: int = 128):
        super().__init__()
        height, across = smallest(size, START, "BEGAN")
        layers = [nn.Linear(hidden, width * height * across), nn.Unflatten(1, (width, height, across))]
        for _ in range(doublings(size, START, "BEGAN")):
            layers += [*convolutions(width, width), nn.Upsample(scale_factor=2.0)]
        self.layers = nn.Sequential(*layers, *convolutions(width, width), nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h)


class Encoder(nn.Module):
    """images [B, channels, H, W] → h [B, hidden]: features grow by ``width`` with every halving."""

    def __init__(self, size: Size = 64, channels: int = 3, hidden: int = 64, width: int = 128):
        super().__init__()
        halvings, (height, across) = doublings(size, START, "BEGAN"), smallest(size, START, "BEGAN")
        layers = [nn.Conv2d(channels, width, 3, padding=1), nn.ELU()]
        for k in range(1, halvings + 1):
            layers += convolutions(k * width, (k + 1) * width, 2)
        last = (halvings + 1) * width
        layers += [*convolutions(last, last), nn.Flatten(), nn.Linear(last * height * across, hidden)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Autoencoder(nn.Module):
    """images → their reconstructions, of the same shape, through ``hidden`` numbers."""

    def __init__(self, size: Size = 64, channels: int = 3, hidden: int = 64, width: int = 128):
        super().__init__()
        self.encoder, self.decoder = Encoder(size, channels, hidden, width), Decoder(size, channels, hidden, width)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))
