"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) under torchvision's names."""

import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.models.published import normalised, resized, rgb

# expansion, channels, blocks, stride
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class Inverted(nn.Module):
    """Expansion by 1×1, a depthwise 3×3, a linear projection; added to the input where shapes are equal."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        widened = [conv(inputs, wide, 1)] if expansion > 1 else []
        narrow = nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv = nn.Sequential(*widened, conv(wide, wide, 3, stride, wide), *narrow)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Images [B, 1 or 3, H, W] in [−1, 1] → (features [B, 1280] before the classifier, logits [B, 1000] of ImageNet).

    The whole image is resized to 224×224 (bilinear, antialiased) and normalised as torchvision's weights want it;
    torchvision's own evaluation crops the centre of 256×256 instead, which would leave the borders unseen.
    """

    def __init__(self):
        super().__init__()
        layers, channels = [conv(3, 32, 3, 2)], 32
        for expansion, outputs, count, stride in BLOCKS:
            for k in range(count):
                layers.append(Inverted(channels, outputs, stride if k == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers, conv(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = normalised(resized(rgb(images), 224, "bilinear"))
        found = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return found, self.classifier(found)
