"""What published networks see of images [B, C, H, W] in [−1, 1]: three channels, their size, their scale."""

import torch.nn.functional as F
from torch import Tensor

from ganfast.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


def rgb(images: Tensor) -> Tensor:
    """[B, 1 or 3, H, W] → [B, 3, H, W]."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"images: got {list(images.shape)}, networks of photographs need [B, 1 or 3, H, W].")
    return images.expand(-1, 3, -1, -1)


def resized(images: Tensor, side: int, mode: str) -> Tensor:
    """The whole image as a square of ``side``, bilinear or bicubic, antialiased where it shrinks; stays in [−1, 1]."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode=mode, align_corners=False, antialias=True).clamp(-1, 1)


def normalised(images: Tensor) -> Tensor:
    """[−1, 1] → [0, 1], less ImageNet's mean, over its standard deviation."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return ((images + 1) / 2 - mean) / std
