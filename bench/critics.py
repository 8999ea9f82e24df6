"""Critics of the field's papers, as people write them in plain PyTorch: CRITICS[name] = (maker, shape of the samples).

Those whose name is in LABELLED take class labels beside the samples; BARS is what a step has to reach over torch's.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 10


def plain(layer):
    return layer


# --- ResNets ----------------------------------------------------------------------------------------------------------


class FirstBlock(nn.Module):
    """The block that reads the image: no activation before it."""

    def __init__(self, inputs, outputs, wrap, activation):
        super().__init__()
        self.c1 = wrap(nn.Conv2d(inputs, outputs, 3, 1, 1))
        self.c2 = wrap(nn.Conv2d(outputs, outputs, 3, 1, 1))
        self.c_sc = wrap(nn.Conv2d(inputs, outputs, 1))
        self.activation = activation()

    def forward(self, x):
        h = F.avg_pool2d(self.c2(self.activation(self.c1(x))), 2)
        return h + self.c_sc(F.avg_pool2d(x, 2))


class Block(nn.Module):
    """Activations before the convolutions; one in place acts on the block's input before the shortcut reads it."""

    def __init__(self, inputs, outputs, down, wrap, activation, norm):
        super().__init__()
        self.learnable_sc, self.down = inputs != outputs or down, down
        self.activation = activation()
        self.n1, self.n2 = norm(inputs), norm(outputs)
        self.c1 = wrap(nn.Conv2d(inputs, outputs, 3, 1, 1))
        self.c2 = wrap(nn.Conv2d(outputs, outputs, 3, 1, 1))
        if self.learnable_sc:
            self.c_sc = wrap(nn.Conv2d(inputs, outputs, 1, 1, 0))

    def residual(self, x):
        h = self.activation(self.n1(x))
        h = self.c1(h)
        h = self.activation(self.n2(h))
        h = self.c2(h)
        return F.avg_pool2d(h, 2) if self.down else h

    def shortcut(self, x):
        if self.learnable_sc:
            x = self.c_sc(x)
            return F.avg_pool2d(x, 2) if self.down else x
        return x

    def forward(self, x):
        return self.residual(x) + self.shortcut(x)


class ResNet(nn.Module):
    """Blocks of ``widths``, all but the last two of which halve the side; global sum pooling."""

    def __init__(self, widths, wrap=plain, activation=lambda: nn.ReLU(True), norm=lambda c: nn.Identity(), still=2):
        super().__init__()
        self.block1 = FirstBlock(3, widths[0], wrap, activation)
        self.depth = len(widths)
        for i, (a, b) in enumerate(pairwise(widths), 2):
            setattr(self, f"block{i}", Block(a, b, i <= self.depth - still, wrap, activation, norm))
        self.activation = activation()
        self.linear = wrap(nn.Linear(widths[-1], 1))

    def forward(self, x):
        h = x
        for i in range(self.depth):
            h = getattr(self, f"block{i + 1}")(h)
        h = self.activation(h)
        h = torch.sum(h, dim=(2, 3))
        return self.linear(h)


def layer_norm(features):
    return nn.GroupNorm(1, features)


class LayerNormOfChannels(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.norm = nn.LayerNorm(features)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Projection(nn.Module):
    """D(x, y) = l(f(x)) + ⟨e(y), f(x)⟩."""

    def __init__(self, widths, wrap):
        super().__init__()
        self.block1 = FirstBlock(3, widths[0], wrap, lambda: nn.ReLU(True))
        self.blocks = nn.ModuleList(
            Block(a, b, i == 0, wrap, lambda: nn.ReLU(True), lambda c: nn.Identity())
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.l5 = wrap(nn.Linear(widths[-1], 1))
        self.l_y = wrap(nn.Embedding(CLASSES, widths[-1]))

    def forward(self, x, y=None):
        h = self.block1(x)
        for block in self.blocks:
            h = block(h)
        h = torch.sum(F.relu(h), dim=(2, 3))
        output = self.l5(h)
        if y is not None:
            output += torch.sum(self.l_y(y) * h, dim=1, keepdim=True)
        return output


# --- stacks of convolutions -------------------------------------------------------------------------------------------


def dcgan(width, norm, activation=lambda: nn.LeakyReLU(0.2, inplace=True)):
    """Four convolutions that halve the side of 64, and one over what is left."""
    layers = [nn.Conv2d(3, width, 4, 2, 1, bias=False), activation()]
    for a in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(a, 2 * a, 4, 2, 1, bias=False), *([norm(2 * a)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False))


class PatchGAN(nn.Module):
    """pix2pix's, whose scores see 70×70 pixels each."""

    def __init__(self, width, norm):
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for a, b, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers.append(nn.Conv2d(a * width, b * width, 4, stride, 1, bias=bias))
            layers += [norm(b * width), nn.LeakyReLU(0.2, True)]
        self.model = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, input):
        return self.model(input)


class PixelGAN(nn.Module):
    """pix2pix's of 1×1 convolutions."""

    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(width, 2 * width, 1, bias=False),
            nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2, True), nn.Conv2d(2 * width, 1, 1, bias=False),
        )  # fmt: skip

    def forward(self, input):
        return self.net(input)


class Dragan(nn.Module):
    """Blocks of convolution, LeakyReLU, Dropout2d and BatchNorm, then a linear layer."""

    def __init__(self, width, side):
        super().__init__()

        def block(inputs, outputs, bn=True):
            layers = [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Dropout2d(0.25)]
            if bn:
                layers.append(nn.BatchNorm2d(outputs, 0.8))
            return layers

        self.model = nn.Sequential(
            *block(3, width, bn=False), *block(width, 2 * width), *block(2 * width, 4 * width),
            *block(4 * width, 8 * width),
        )  # fmt: skip
        self.adv_layer = nn.Sequential(nn.Linear(8 * width * (side // 16) ** 2, 1))

    def forward(self, img):
        out = self.model(img)
        out = out.view(out.shape[0], -1)
        return self.adv_layer(out)


def silu_net(width):
    layers, features = [nn.Conv2d(3, width, 3, padding=1), nn.SiLU()], width
    for _ in range(3):
        layers += [nn.Conv2d(features, 2 * features, 4, 2, 1), nn.SiLU()]
        layers += [nn.Conv2d(2 * features, 2 * features, 3, 1, 1), nn.SiLU(inplace=True)]
        features *= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 1))


# --- attention --------------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """SAGAN's: γ times what every pixel sees in every other, plus the input."""

    def __init__(self, features, wrap):
        super().__init__()
        self.query_conv = wrap(nn.Conv2d(features, features // 8, 1))
        self.key_conv = wrap(nn.Conv2d(features, features // 8, 1))
        self.value_conv = wrap(nn.Conv2d(features, features, 1))
        self.gamma = nn.Parameter(torch.full((1,), 0.3))
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x):
        batch, features, height, width = x.size()
        query = self.query_conv(x).view(batch, -1, height * width).permute(0, 2, 1)
        key = self.key_conv(x).view(batch, -1, height * width)
        attention = self.softmax(torch.bmm(query, key))
        value = self.value_conv(x).view(batch, -1, height * width)
        out = torch.bmm(value, attention.permute(0, 2, 1)).view(batch, features, height, width)
        return self.gamma * out + x


class SAGAN(nn.Module):
    def __init__(self, width, wrap=nn.utils.parametrizations.spectral_norm):
        super().__init__()

        def down(a, b):
            return nn.Sequential(wrap(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.1))

        self.l1, self.l2, self.l3 = down(3, width), down(width, 2 * width), down(2 * width, 4 * width)
        self.attn1 = SelfAttention(4 * width, wrap)
        self.l4 = down(4 * width, 8 * width)
        self.last = nn.Conv2d(8 * width, 1, 4)

    def forward(self, x):
        out = self.attn1(self.l3(self.l2(self.l1(x))))
        return self.last(self.l4(out)).squeeze()


class TransformerBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(seen.transpose(1, 2).reshape(b, n, c))
        return x + self.mlp(self.norm2(x))


class TransGAN(nn.Module):
    """Patches as tokens, a class token and blocks of attention."""

    def __init__(self, width, depth=3, side=32, patch=4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, 4) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


# --- StyleGAN2 and progressive growing --------------------------------------------------------------------------------


class EqualConv2d(nn.Module):
    def __init__(self, inputs, outputs, size, stride=1, padding=0, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.scale = 1 / math.sqrt(inputs * size**2)
        self.stride, self.padding = stride, padding
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, input):
        return F.conv2d(input, self.weight * self.scale, self.bias, self.stride, self.padding)


class EqualLinear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, input):
        return F.linear(input, self.weight * self.scale, self.bias)


class ScaledLeakyReLU(nn.Module):
    def forward(self, input):
        return F.leaky_relu(input, negative_slope=0.2) * math.sqrt(2)


class Blur(nn.Module):
    """[1, 3, 3, 1] in both directions, one kernel for all channels."""

    def __init__(self, pad):
        super().__init__()
        k = torch.tensor([1.0, 3.0, 3.0, 1.0])
        k = k[None, :] * k[:, None]
        self.register_buffer("kernel", (k / k.sum())[None, None])
        self.pad = pad

    def forward(self, input):
        channels = input.shape[1]
        input = F.pad(input, (self.pad[0], self.pad[1], self.pad[0], self.pad[1]))
        return F.conv2d(input, self.kernel.expand(channels, 1, -1, -1), groups=channels)


def style_layer(inputs, outputs, size, down=False, bias=True, activate=True):
    layers, padding = [], size // 2
    if down:
        extent = 2 + size - 1
        layers.append(Blur(((extent + 1) // 2, extent // 2)))
        padding = 0
    layers.append(EqualConv2d(inputs, outputs, size, 2 if down else 1, padding, bias))
    return nn.Sequential(*layers, *([ScaledLeakyReLU()] if activate else []))


class StyleBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.conv2 = style_layer(inputs, inputs, 3), style_layer(inputs, outputs, 3, down=True)
        self.skip = style_layer(inputs, outputs, 1, down=True, bias=False, activate=False)

    def forward(self, input):
        out = self.conv2(self.conv1(input))
        return (out + self.skip(input)) / math.sqrt(2)


class StyleGAN2(nn.Module):
    def __init__(self, widths, group=4):
        super().__init__()
        self.convs = nn.Sequential(
            style_layer(3, widths[0], 1), *(StyleBlock(a, b) for a, b in pairwise(widths)),
        )  # fmt: skip
        self.stddev_group, self.stddev_feat = group, 1
        self.final_conv = style_layer(widths[-1] + 1, widths[-1], 3)
        self.final_linear = nn.Sequential(
            EqualLinear(widths[-1] * 16, widths[-1]), ScaledLeakyReLU(), EqualLinear(widths[-1], 1)
        )

    def forward(self, input):
        out = self.convs(input)
        batch, channel, height, width = out.shape
        group = min(batch, self.stddev_group)
        stddev = out.view(group, -1, self.stddev_feat, channel // self.stddev_feat, height, width)
        stddev = torch.sqrt(stddev.var(0, unbiased=False) + 1e-8)
        stddev = stddev.mean([2, 3, 4], keepdims=True).squeeze(2)
        stddev = stddev.repeat(group, 1, height, width)
        out = self.final_conv(torch.cat([out, stddev], 1))
        return self.final_linear(out.view(batch, -1))


class Progressive(nn.Module):
    """A new block fades in: α of its output and 1 − α of the smaller image."""

    def __init__(self, widths, alpha=0.4):
        super().__init__()
        self.register_buffer("alpha", torch.tensor(alpha))
        self.from_rgb = nn.ModuleList(EqualConv2d(3, c, 1) for c in widths[:2])
        self.blocks = nn.ModuleList(
            nn.Sequential(
                EqualConv2d(a, a, 3, padding=1), nn.LeakyReLU(0.2), EqualConv2d(a, b, 3, padding=1), nn.LeakyReLU(0.2),
                nn.AvgPool2d(2),
            )
            for a, b in pairwise(widths)
        )  # fmt: skip
        self.last = EqualConv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.linear = EqualLinear(widths[-1] * 16, 1)

    def forward(self, x):
        h = self.blocks[0](F.leaky_relu(self.from_rgb[0](x), 0.2))
        if self.alpha < 1:
            small = F.leaky_relu(self.from_rgb[1](F.avg_pool2d(x, 2)), 0.2)
            h = self.alpha * h + (1 - self.alpha) * small
        for block in self.blocks[1:]:
            h = block(h)
        deviation = torch.sqrt(torch.var(h, dim=0, unbiased=False) + 1e-8).mean()
        h = torch.cat([h, deviation.expand(h.size(0), 1, h.size(2), h.size(3))], dim=1)
        return self.linear(F.leaky_relu(self.last(h), 0.2).flatten(1)).view(-1)


# --- others -----------------------------------------------------------------------------------------------------------


class BEGAN(nn.Module):
    """An autoencoder of ELUs; its score is how far it misses each sample."""

    def __init__(self, width, code=64):
        super().__init__()
        down = [nn.Conv2d(3, width, 3, 1, 1), nn.ELU(True)]
        for i in (1, 2, 3):
            down += [nn.Conv2d(i * width, i * width, 3, 1, 1), nn.ELU(True)]
            down += [nn.Conv2d(i * width, (i + 1) * width, 3, 2, 1), nn.ELU(True)]
        self.down, self.width = nn.Sequential(*down), width
        self.fc1, self.fc2 = nn.Linear(4 * width * 16, code), nn.Linear(code, width * 16)
        up = []
        for _ in range(3):
            up += [nn.Conv2d(width, width, 3, 1, 1), nn.ELU(True), nn.UpsamplingNearest2d(scale_factor=2)]
        self.up = nn.Sequential(*up, nn.Conv2d(width, 3, 3, 1, 1))

    def forward(self, img):
        h = self.fc1(self.down(img).view(img.size(0), -1))
        out = self.up(self.fc2(h).view(-1, self.width, 4, 4))
        return torch.mean(torch.abs(out - img), dim=(1, 2, 3))


class MLP(nn.Module):
    def __init__(self, inputs, width, norm):
        super().__init__()
        layers = [nn.Linear(inputs, width), nn.LeakyReLU(0.2, inplace=True)]
        for _ in range(3):
            layers += [nn.Linear(width, width), norm(width), nn.LeakyReLU(0.2, inplace=True)]
        self.model = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, img):
        img_flat = img.view(img.shape[0], -1)
        return self.model(img_flat)


spectral = nn.utils.spectral_norm
SMALL, LARGE = (16, 3, 32, 32), (16, 3, 64, 64)
CRITICS = {
    "SNGAN ResNet": (lambda: ResNet((48,) * 4, spectral), SMALL),
    "SNGAN ResNet, parametrized": (lambda: ResNet((48,) * 4, nn.utils.parametrizations.spectral_norm), SMALL),
    "WGAN-GP ResNet": (lambda: ResNet((16, 32, 64, 128, 128), still=0), LARGE),
    "WGAN-GP ResNet, ReLU not in place": (lambda: ResNet((48,) * 4, activation=nn.ReLU), SMALL),
    "ResNet, InstanceNorm": (lambda: ResNet((48,) * 4, norm=lambda c: nn.InstanceNorm2d(c, affine=True)), SMALL),
    "ResNet, LayerNorm": (lambda: ResNet((48,) * 4, norm=layer_norm), SMALL),
    "ResNet, LayerNorm of channels": (lambda: ResNet((48,) * 4, norm=LayerNormOfChannels), SMALL),
    "ResNet, BatchNorm": (lambda: ResNet((48,) * 4, norm=nn.BatchNorm2d), SMALL),
    "DCGAN, BatchNorm": (lambda: dcgan(32, nn.BatchNorm2d), (32, 3, 64, 64)),
    "DCGAN": (lambda: dcgan(32, None), (32, 3, 64, 64)),
    "DCGAN, InstanceNorm": (lambda: dcgan(32, lambda c: nn.InstanceNorm2d(c, affine=True)), (32, 3, 64, 64)),
    "PatchGAN, InstanceNorm": (lambda: PatchGAN(32, nn.InstanceNorm2d), (8, 3, 64, 64)),
    "PatchGAN, BatchNorm": (lambda: PatchGAN(32, nn.BatchNorm2d), (8, 3, 64, 64)),
    "PixelGAN": (lambda: PixelGAN(32), (8, 3, 64, 64)),
    "SAGAN": (lambda: SAGAN(32), LARGE),
    "StyleGAN2": (lambda: StyleGAN2((16, 32, 64, 64)), SMALL),
    "BEGAN": (lambda: BEGAN(32), SMALL),
    "GELU ResNet": (lambda: ResNet((48,) * 4, activation=nn.GELU), SMALL),
    "SiLU ConvNet": (lambda: silu_net(24), SMALL),
    "MLP, LayerNorm": (lambda: MLP(3 * 32 * 32, 512, nn.LayerNorm), (64, 3, 32, 32)),
    "MLP, BatchNorm1d": (lambda: MLP(3 * 32 * 32, 512, nn.BatchNorm1d), (64, 3, 32, 32)),
    "DRAGAN": (lambda: Dragan(32, 64), (32, 3, 64, 64)),
    "progressive growing": (lambda: Progressive((24, 48, 64, 64)), SMALL),
    "projection": (lambda: Projection((48,) * 4, spectral), SMALL),
    "TransGAN": (lambda: TransGAN(96), SMALL),
}
LABELLED = {"projection"}


def made(name):
    """The critic, with weights that keep its activations' size, and the arguments beside the samples."""
    make, shape = CRITICS[name]
    torch.manual_seed(1)
    critic = make()
    for layer in critic.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and "weight" in layer._parameters:
            nn.init.kaiming_normal_(layer.weight, 0.2)
    labels = torch.randint(CLASSES, shape[:1])
    return critic, (labels,) if name in LABELLED else ()


# what each has to reach over double backward; the others 1
BARS = {
    "SNGAN ResNet": 1.5, "SNGAN ResNet, parametrized": 1.5, "WGAN-GP ResNet": 1.5,
    "WGAN-GP ResNet, ReLU not in place": 1.5, "projection": 1.5, "ResNet, InstanceNorm": 1.25,
    "DCGAN, InstanceNorm": 1.25, "PatchGAN, InstanceNorm": 1.25, "ResNet, BatchNorm": 1.1, "DCGAN, BatchNorm": 1.1,
    "PatchGAN, BatchNorm": 1.1, "PixelGAN": 1.1, "MLP, BatchNorm1d": 1.1, "DRAGAN": 1.1,
}  # fmt: skip
