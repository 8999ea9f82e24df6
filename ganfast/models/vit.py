"""DINOv2's vision transformers ViT-S, ViT-B and ViT-L/14 (Oquab et al. 2023, arXiv:2304.07193) under Meta's names."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.models.published import normalised, resized, rgb

SIDE, PATCH, TRAINED = 224, 14, 37  # pixels a side; of a patch; patches a side that positions were trained on
HEAD = 64  # features of a head


class Scale(nn.Module):
    """LayerScale."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # [B, heads, tokens, HEAD]
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, eps=1e-6), Attention(width), Scale(width)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(width, eps=1e-6), MLP(width), Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class DINOv2(nn.Module):
    """Images [B, 1 or 3, H, W] in [−1, 1] → (the normalised class token [B, width], None).

    Resized to 224×224 (bicubic, antialiased) and normalised by ImageNet's mean and deviation, as FD-DINOv2 is defined
    (Stein et al. 2023, arXiv:2306.04675). ``width`` is 384 (S), 768 (B, both of 12 blocks) or 1024 (L, of 24).
    """

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of its training
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED**2, width))
        self.patch_embed = Patches(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self) -> Tensor:
        """[1, 1 + (SIDE / PATCH)², width]: bicubic, by a factor larger by 0.1 patches, as in Meta's code."""
        own, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:].unflatten(1, (TRAINED, TRAINED)).permute(0, 3, 1, 2)
        factor = (SIDE // PATCH + 0.1) / TRAINED
        small = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([own, small.flatten(2).transpose(1, 2)], 1)

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        x = self.patch_embed(normalised(resized(rgb(images), SIDE, "bicubic")))
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.positions()
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0]), None
