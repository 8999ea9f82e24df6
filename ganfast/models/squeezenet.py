"""SqueezeNet 1.0 (Iandola et al. 2016, arXiv:1602.07360) under the names of the published Caffe model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.models.published import resized, rgb

MEAN = (104.0, 117.0, 123.0)  # BGR, of 255
# name → channels in, squeezed, of each half that comes out
FIRES = {
    "fire2": (96, 16, 64), "fire3": (128, 16, 64), "fire4": (128, 32, 128), "fire5": (256, 32, 128),
    "fire6": (256, 48, 192), "fire7": (384, 48, 192), "fire8": (384, 64, 256), "fire9": (512, 64, 256),
}  # fmt: skip
POOLED = ("fire4", "fire8")  # are followed by a pooling


class Fire(nn.Module):
    """1×1 to few channels, then 1×1 and 3×3 side by side."""

    def __init__(self, inputs: int, squeezed: int, half: int):
        super().__init__()
        self.conv1x1_1 = nn.Conv2d(inputs, squeezed, 1)
        self.conv1x1_2 = nn.Conv2d(squeezed, half, 1)
        self.conv3x3_2 = nn.Conv2d(squeezed, half, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1x1_1(x).relu()
        return torch.cat([self.conv1x1_2(x), self.conv3x3_2(x)], 1).relu()


class SqueezeNet(nn.Module):
    """Images [B, 1 or 3, H, W] in [−1, 1] → (features [B, 512], the means of fire9; logits [B, 1000] of ImageNet).

    Resized to 227×227 (bilinear, antialiased), BGR of 255 less the mean, as the Caffe model wants it.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        for name, sizes in FIRES.items():
            setattr(self, name, Fire(*sizes))
        self.conv_final = nn.Conv2d(512, 1000, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = resized(rgb(images), 227, "bilinear").add(1).mul(127.5).flip(1)
        x = pooled(self.conv1(x - x.new_tensor(MEAN)[:, None, None]).relu())
        for name in FIRES:
            x = getattr(self, name)(x)
            if name in POOLED:
                x = pooled(x)
        return x.mean((2, 3)), self.conv_final(x).relu().mean((2, 3))


def pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)  # Caffe rounds sizes up
