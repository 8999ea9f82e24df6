"""InfoGAN's discriminator and recognition network, which share a trunk (Chen et al. 2016, arXiv:1606.03657)."""

from torch import Tensor, nn

from ganfast.models import dcgan
from ganfast.models.sizes import Size
from ganfast.nn import ConvAct2d, FusedSequential


class Discriminator(nn.Module):
    """images [B, channels, H, W] → logits [B]: ``head(features(images))``, DCGAN's in two parts."""

    def __init__(self, size: Size = 64, channels: int = 3, width: int = 64):
        super().__init__()
        *trunk, head = dcgan.Discriminator(size, channels, width).layers
        self.trunk, self.last = FusedSequential(*trunk), head

    def features(self, images: Tensor) -> Tensor:
        """[B, F, h, w]: (h, w) is ``dcgan.kernel(size)``, 4×4 for squares."""
        return self.trunk(images)

    def head(self, features: Tensor) -> Tensor:
        return self.last(features).flatten()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class Recognition(nn.Module):
    """Features [B, F, *kernel] of the discriminator → (logits [B, categories], means [B, codes]) of the codes."""

    def __init__(
        self, features: int, categories: int, codes: int, width: int = 128, kernel: int | tuple[int, int] = 4
    ):  # fmt: skip
        super().__init__()
        self.categories = categories
        self.layers = nn.Sequential(
            ConvAct2d(features, width, kernel), nn.Flatten(), nn.Linear(width, categories + codes)
        )
        dcgan.initialize(self)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.layers(features).tensor_split([self.categories], 1)
