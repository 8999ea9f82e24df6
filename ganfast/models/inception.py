"""Inception-v3 as FID uses it (Szegedy et al. 2015, arXiv:1512.00567; TensorFlow's graph of 2015-12-05).

Under the names of pt_inception-2015-12-05, the file of pytorch-fid and torch-fidelity: 1008 logits, BatchNorm with
ε = 10⁻³, mean poolings that do not count the padding, and a maximum pooling in the last block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.models.published import rgb

SIDE = 299
SPLIT = {"a": (1, 3), "b": (3, 1)}  # kernels of two convolutions of one input
WIDE, TALL = (1, 7), (7, 1)


class Conv(nn.Module):
    """Convolution, BatchNorm, ReLU; ``padding`` keeps the size where the stride is 1."""

    def __init__(self, inputs: int, outputs: int, kernel=1, stride: int = 1, padding=None):
        super().__init__()
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = tuple(k // 2 for k in kernel) if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Block(nn.Module):
    """Branches side by side: chains of convolutions by name, then the pooling ``pool``, with one where it has a name.

    A chain is a list of (name, outputs, kernel, stride, padding); one that ends in two names splits there.
    """

    def __init__(self, inputs: int, chains: list[list[tuple]], pool: str, pooled: int = 0):
        super().__init__()
        self.chains, self.pool = [[step[0] for step in chain] for chain in chains], pool
        for chain in chains:
            channels = inputs
            for name, *how in chain:
                for each in name.split():
                    split = [how[0], SPLIT[each[-1]]] if " " in name else how
                    setattr(self, each, Conv(channels, *split))
                channels = how[0]
        if pooled:
            self.branch_pool = Conv(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for chain in self.chains:
            found = x
            for name in chain:
                found = torch.cat([getattr(self, each)(found) for each in name.split()], 1)
            parts.append(found)
        if self.pool == "reduce":
            return torch.cat([*parts, F.max_pool2d(x, 3, 2)], 1)
        mean = self.pool == "mean"
        small = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if mean else F.max_pool2d(x, 3, 1, 1)
        return torch.cat([*parts, self.branch_pool(small)], 1)


def block_a(inputs: int, pooled: int) -> Block:
    double = [("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return Block(inputs, [[("branch1x1", 64)], [("branch5x5_1", 48), ("branch5x5_2", 64, 5)], double], "mean", pooled)


def block_b(inputs: int) -> Block:
    double = [("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2, 0)]
    return Block(inputs, [[("branch3x3", 384, 3, 2, 0)], double], "reduce")


def block_c(inputs: int, c: int) -> Block:
    single = [("branch7x7_1", c), ("branch7x7_2", c, WIDE), ("branch7x7_3", 192, TALL)]
    kernels = ((c, TALL), (c, WIDE), (c, TALL), (192, WIDE))
    double = [("branch7x7dbl_1", c), *((f"branch7x7dbl_{k}", *how) for k, how in enumerate(kernels, 2))]
    return Block(inputs, [[("branch1x1", 192)], single, double], "mean", 192)


def block_d(inputs: int) -> Block:
    seven = [("branch7x7x3_1", 192), ("branch7x7x3_2", 192, WIDE), ("branch7x7x3_3", 192, TALL)]
    return Block(
        inputs,
        [[("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2, 0)], [*seven, ("branch7x7x3_4", 192, 3, 2, 0)]],
        "reduce",
    )


def block_e(inputs: int, pool: str) -> Block:
    single = [("branch3x3_1", 384), ("branch3x3_2a branch3x3_2b", 384)]
    double = [("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, 3), ("branch3x3dbl_3a branch3x3dbl_3b", 384)]
    return Block(inputs, [[("branch1x1", 320)], single, double], pool, 192)


class InceptionV3(nn.Module):
    """Images [B, 1 or 3, H, W] in [−1, 1] → (pool features [B, 2048], logits [B, 1008] without their bias).

    Resized to 299×299 as TensorFlow 1 does, and scaled to (255·x − 128)/128, as torch-fidelity does; the Inception
    Score is of the logits without bias, as there.
    """

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, 0)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, 1, 0)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, 1, 0)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = block_a(192, 32), block_a(256, 64), block_a(288, 64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b, self.Mixed_6c = block_c(768, 128), block_c(768, 160)
        self.Mixed_6d, self.Mixed_6e = block_c(768, 160), block_c(768, 192)
        self.Mixed_7a = block_d(768)
        self.Mixed_7b, self.Mixed_7c = block_e(1280, "mean"), block_e(2048, "max")
        self.fc = nn.Linear(2048, 1008)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = as_tensorflow(rgb(images), SIDE).add(1).mul(127.5).sub(128).div(128)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        features = x.mean((2, 3))
        return features, F.linear(features, self.fc.weight)


def as_tensorflow(images: Tensor, side: int) -> Tensor:
    """Bilinear to side×side as TensorFlow 1 without align_corners: pixel k lies at k · (old / side), no antialias."""
    for axis in (2, 3):
        old = images.shape[axis]
        at = torch.arange(side, device=images.device, dtype=torch.float32) * (old / side)
        low = at.long()
        weight = (at - low).to(images.dtype).view(-1, *[1] * (3 - axis))
        a, b = images.index_select(axis, low), images.index_select(axis, (low + 1).clamp(max=old - 1))
        images = torch.lerp(a, b, weight)
    return images
