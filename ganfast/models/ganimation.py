"""GANimation's generator (Pumarola et al. 2018, arXiv:1807.09251, section 4)."""

from torch import Tensor, nn

from ganfast.models.stargan import trunk, with_maps


class Generator(nn.Module):
    """images x [B, C, H, W], attributes [B, A] → (1 − m)·c + m·x, with ``masks`` m as well.

    c in (−1, 1) is a picture in colour, m [B, 1, H, W] in (0, 1) an attention mask: 1 keeps what is there.
    """

    def __init__(self, channels: int, attributes: int, width: int = 64, blocks: int = 6):
        super().__init__()
        self.main = nn.Sequential(*trunk(channels + attributes, width, blocks))
        self.color = nn.Sequential(nn.Conv2d(width, channels, 7, 1, 3, bias=False), nn.Tanh())
        self.mask = nn.Sequential(nn.Conv2d(width, 1, 7, 1, 3, bias=False), nn.Sigmoid())

    def forward(self, images: Tensor, attributes: Tensor, masks: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        features = self.main(with_maps(images, attributes))
        mask = self.mask(features)
        made = mask * images + (1 - mask) * self.color(features)
        return (made, mask) if masks else made
