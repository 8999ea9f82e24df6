"""The context encoder (Pathak et al. 2016, arXiv:1604.07379, figure 9)."""

from torch import Tensor, nn

from ganfast.models import dcgan
from ganfast.models.sizes import Size


class ContextEncoder(nn.Module):
    """pictures [B, C, H, W] with holes → pictures [B, C, H, W] in (−1, 1), whole ones, through ``code`` numbers.

    DCGAN's discriminator as encoder and its generator as decoder, without skips: what fills a hole comes from all that
    is around it. Sizes as in ``dcgan``.
    """

    def __init__(self, size: Size = 64, channels: int = 3, code: int = 1000, width: int = 64):
        super().__init__()
        self.encoder = dcgan.Discriminator(size, channels, width, outputs=code)
        self.bottleneck = nn.Sequential(nn.BatchNorm1d(code), nn.LeakyReLU(0.2))
        self.decoder = dcgan.Generator(size, channels, code, width)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.bottleneck(self.encoder(images)))
