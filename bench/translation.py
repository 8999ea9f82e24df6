"""CycleGAN and pix2pix as their papers' training loops have them, in plain eager PyTorch; written from the papers.

Zhu et al. 2017 (arXiv:1703.10593): two ResNets and two discriminators of patches, one Adam for both networks of a kind,
the discriminators' losses differentiated one by one, a pool of earlier translations in Python.
Isola et al. 2017 (arXiv:1611.07004): a U-Net, and a discriminator that sees both sides.
"""

import itertools
import random
from itertools import pairwise

import torch
from torch import nn

ADAM = {"lr": 2e-4, "betas": (0.5, 0.999)}


class ResNetBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        self.layers = nn.Sequential(*half, nn.ReLU(True), *again)

    def forward(self, x):
        return x + self.layers(x)


def resnet(width: int, blocks: int = 9) -> nn.Sequential:
    """[B, 3, H, W] → [B, 3, H, W]: c7s1-w, d2w, d4w, blocks of R4w, u2w, uw, c7s1-3."""
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True)]
    for a, b in pairwise((width, 2 * width, 4 * width)):
        layers += [nn.Conv2d(a, b, 3, 2, 1), nn.InstanceNorm2d(b), nn.ReLU(True)]
    layers += [ResNetBlock(4 * width) for _ in range(blocks)]
    for a, b in pairwise((4 * width, 2 * width, width)):
        layers += [nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(b), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())


def patches(channels: int, width: int, norm: type[nn.Module]) -> nn.Sequential:
    """[B, channels, H, W] → scores of 70×70 patches: C w, 2w, 4w, 8w and one number."""
    layers, bias = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)], norm is nn.InstanceNorm2d
    for a, b in pairwise((width, 2 * width, 4 * width, 8 * width)):
        layers += [nn.Conv2d(a, b, 4, 1 if b == 8 * width else 2, 1, bias=bias), norm(b), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


class Skip(nn.Module):
    """x beside what lies below it; ``inner`` is None at the bottom."""

    def __init__(self, outer, features, inner=None):
        super().__init__()
        layers = [nn.LeakyReLU(0.2, True), nn.Conv2d(outer, features, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(features), inner] if inner else []
        layers += [nn.ReLU(True), nn.ConvTranspose2d(2 * features if inner else features, outer, 4, 2, 1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(outer))

    def forward(self, x):
        return torch.cat([x, self.layers(x)], 1)


def unet(width: int, halvings: int = 7) -> nn.Sequential:
    """[B, 3, H, W] → [B, 3, H, W], sides multiples of 2^halvings: without dropout, so that losses can be compared."""
    features = [width * min(2**k, 8) for k in range(halvings)]
    inner = None
    for outer, below in reversed(list(pairwise(features))):
        inner = Skip(outer, below, inner)
    head = [nn.Conv2d(3, width, 4, 2, 1, bias=False), inner]
    return nn.Sequential(*head, nn.ReLU(True), nn.ConvTranspose2d(2 * width, 3, 4, 2, 1), nn.Tanh())


def frozen(networks, yes: bool) -> None:
    for network in networks:
        for parameter in network.parameters():
            parameter.requires_grad = not yes


class Pool:
    """The last ``size`` translations: the first ones come back as they are, later ones half of the time an earlier."""

    def __init__(self, size: int = 50):
        self.size, self.images = size, []

    def query(self, images):
        found = []
        for image in images.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(image)
            elif random.random() > 0.5:
                k = random.randrange(self.size)
                image, self.images[k] = self.images[k].clone(), image
            found.append(image)
        return torch.cat(found)


def cyclegan(g_ab, g_ba, d_a, d_b):
    """update(a, b) → (loss of the generators, loss of the discriminators)."""
    adam_g = torch.optim.Adam(itertools.chain(g_ab.parameters(), g_ba.parameters()), **ADAM)
    adam_d = torch.optim.Adam(itertools.chain(d_a.parameters(), d_b.parameters()), **ADAM)
    l1, mse, pool_a, pool_b = nn.L1Loss(), nn.MSELoss(), Pool(), Pool()

    def adversarial(scores, real: bool):
        return mse(scores, torch.tensor(float(real), device=scores.device).expand_as(scores))

    def update(a, b):
        fake_b, fake_a = g_ab(a), g_ba(b)
        again_a, again_b = g_ba(fake_b), g_ab(fake_a)
        frozen((d_a, d_b), True)
        adam_g.zero_grad()
        identity = l1(g_ab(b), b) * 10 * 0.5 + l1(g_ba(a), a) * 10 * 0.5
        cycle = l1(again_a, a) * 10 + l1(again_b, b) * 10
        loss_g = adversarial(d_b(fake_b), True) + adversarial(d_a(fake_a), True) + cycle + identity
        loss_g.backward()
        adam_g.step()
        frozen((d_a, d_b), False)
        adam_d.zero_grad()
        losses = []
        for d, real, fake in ((d_a, a, pool_a.query(fake_a)), (d_b, b, pool_b.query(fake_b))):
            losses.append((adversarial(d(real), True) + adversarial(d(fake), False)) * 0.5)
            losses[-1].backward()
        adam_d.step()
        return torch.stack([loss_g.detach(), sum(losses).detach()])

    return update


def pix2pix(g, d):
    """update(x, y) → (loss of the discriminator, loss of the generator)."""
    adam_g, adam_d = (torch.optim.Adam(network.parameters(), **ADAM) for network in (g, d))
    l1, bce = nn.L1Loss(), nn.BCEWithLogitsLoss()

    def adversarial(scores, real: bool):
        return bce(scores, torch.tensor(float(real), device=scores.device).expand_as(scores))

    def update(x, y):
        fake = g(x)
        frozen((d,), False)
        adam_d.zero_grad()
        of_fake = adversarial(d(torch.cat([x, fake], 1).detach()), False)
        loss_d = (of_fake + adversarial(d(torch.cat([x, y], 1)), True)) * 0.5
        loss_d.backward()
        adam_d.step()
        frozen((d,), True)
        adam_g.zero_grad()
        loss_g = adversarial(d(torch.cat([x, fake], 1)), True) + l1(fake, y) * 100
        loss_g.backward()
        adam_g.step()
        return torch.stack([loss_d.detach(), loss_g.detach()])

    return update
