"""VGG16 (Simonyan and Zisserman 2014, arXiv:1409.1556) up to conv4_1, under the names of the published Caffe model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.models.published import fitting, read, rgb

SCALE = 1 / 12.75  # of activations in losses (Ledig et al. 2017, section 3.2)
STRIDE = 8  # pixels between places of conv4_1
MEAN = (104.007, 116.669, 122.679)  # BGR, of 255
# name → channels in and out
LAYERS = {
    "conv1_1": (3, 64), "conv1_2": (64, 64), "conv2_1": (64, 128), "conv2_2": (128, 128), "conv3_1": (128, 256),
    "conv3_2": (256, 256), "conv3_3": (256, 256), "conv4_1": (256, 512),
}  # fmt: skip


def window(images: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Images [B, C, H, W] → their crops [B, C, H − 8, W − 8], each from its corner, int64 [B] from 0 to 8."""
    height, width = (torch.arange(side - STRIDE, device=images.device) for side in images.shape[2:])
    rows = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    pixels = images.permute(0, 2, 3, 1)[rows, top.view(-1, 1, 1) + height.view(-1, 1), left.view(-1, 1, 1) + width]
    return pixels.permute(0, 3, 1, 2)


class Maps(nn.Module):
    """Images [B, 1 or 3, H, W] in [−1, 1] → what each of ``LAYERS`` gives, after its ReLU: [B, 64, H, W], …

    Of their own size, BGR of 255 less the mean; the layers conv2_1, conv3_1 and conv4_1 halve it. Differentiable.
    """

    def __init__(self):
        super().__init__()
        for name, sizes in LAYERS.items():
            setattr(self, name, nn.Conv2d(*sizes, 3, padding=1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = rgb(images).add(1).mul(127.5).flip(1)
        x, found = x - x.new_tensor(MEAN)[:, None, None], []
        for name in LAYERS:
            pooled = F.max_pool2d(x, 2) if name in ("conv2_1", "conv3_1", "conv4_1") else x
            x = getattr(self, name)(pooled).relu()
            found.append(x)
        return tuple(found)

    def load(self, path: str) -> None:
        """The weights of the file that --vgg names; ``InputError`` where it has others."""
        fitting(self, read(path, "--vgg"), "VGG16 up to conv4_1", f"--vgg {path}")


class VGG16(Maps):
    """Images [B, 1 or 3, H, W] in [−1, 1] → (features [B, 512], the means of conv4_1; None: no logits)."""

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        return super().forward(images)[-1].mean((2, 3)), None
