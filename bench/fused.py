"""The speed of ganfast.fuse(network) over the plain network's on a CPU: networks as people write them.

    python bench/fused.py [--rounds N] [--only NAME] [--threads N]

One line a network, size, mode and precision: plain milliseconds and plain/fused, both medians of calls in turn. The
last lines are the least, the median and the largest ratio of each mode and precision.
"""

import argparse
import copy
import gc
import statistics
import time
from itertools import pairwise

import nets
import torch
import torch.nn.functional as F
from torch import nn

import ganfast


class Residual(nn.Module):
    """A block with a learned shortcut where it is needed, asked for at each call."""

    def __init__(self, a, b, stride=1):
        super().__init__()
        self.changes = a != b or stride != 1
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.shortcut = nn.Conv2d(a, b, 1, stride) if self.changes else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.changes:
            x = self.shortcut(x)
        return F.relu(y + x)


class Straight(nn.Module):
    """A critic whose forward names its layers one by one."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, width, 4, 2, 1), nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
        self.bn2, self.conv3 = nn.BatchNorm2d(2 * width), nn.Conv2d(2 * width, 2 * width, 3, 1, 1)
        self.bn3, self.last = nn.BatchNorm2d(2 * width), nn.Conv2d(2 * width, 1, 4)

    def forward(self, x):
        x = F.leaky_relu(self.conv1(x), 0.2)
        x = F.leaky_relu(self.bn2(self.conv2(x)), 0.2, inplace=True)
        x = F.relu(self.bn3(self.conv3(x)))
        return self.last(x)


class Skip(nn.Module):
    """One level of a U-Net: down, what lies within, up, beside the input."""

    def __init__(self, a, b, inner=None):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2))
        self.inner = inner
        up = nn.ConvTranspose2d(2 * b if inner else b, a, 4, 2, 1, bias=False)
        self.up = nn.Sequential(up, nn.BatchNorm2d(a), nn.ReLU())

    def forward(self, x):
        y = self.down(x)
        if self.inner is not None:
            y = self.inner(y)
        return torch.cat([x, self.up(y)], 1)


def unet(w):
    skips = Skip(w, 2 * w, Skip(2 * w, 4 * w, Skip(4 * w, 4 * w)))
    return nn.Sequential(nn.Conv2d(3, w, 3, 1, 1), nn.ReLU(), skips, nn.Conv2d(2 * w, 3, 3, 1, 1), nn.Tanh())


def resnet(w):
    blocks = [Residual(w, 2 * w, 2), Residual(2 * w, 2 * w), Residual(2 * w, 4 * w, 2)]
    return nn.Sequential(nn.Conv2d(3, w, 3, 1, 1), nn.BatchNorm2d(w), nn.ReLU(), *blocks, nn.Conv2d(4 * w, 1, 4))


def patch(w, norm=nn.BatchNorm2d):
    layers = [nn.Conv2d(3, w, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for a, b, stride in ((w, 2 * w, 2), (2 * w, 4 * w, 1)):
        layers += [nn.Conv2d(a, b, 4, stride, 1), norm(b), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(4 * w, 1, 4, 1, 1))


def pixels(w):
    return nn.Sequential(
        nn.Conv2d(3, w, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(w, 2 * w, 1, bias=False), nn.BatchNorm2d(2 * w),
        nn.LeakyReLU(0.2, True), nn.Conv2d(2 * w, 1, 1, bias=False),
    )  # fmt: skip


def translator(w):
    """Down, residual blocks and up, with InstanceNorm, reflected borders and BatchNorm on the way up."""
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), nn.InstanceNorm2d(w), nn.ReLU(True)]
    layers += [nn.Conv2d(w, 2 * w, 3, 2, 1), nn.BatchNorm2d(2 * w), nn.ReLU(True), Residual(2 * w, 2 * w)]
    layers += [nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), nn.BatchNorm2d(w), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.Conv2d(w, 3, 3, 1, 1), nn.Tanh())


def smooth(w):
    """A decoder of stride 1: transposed convolutions of 3×3 and 1×1 behind upsampling."""
    layers = []
    for a, b in pairwise((w, w, w)):
        layers += [nn.Upsample(scale_factor=2), nn.ConvTranspose2d(a, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(nn.Conv2d(3, w, 4, 4), *layers, nn.ConvTranspose2d(w, 3, 1), nn.Tanh())


def convolutions(w):
    layers = [nn.Conv2d(3, w, 3, 1, 1), nn.LeakyReLU(0.2)]
    for a, b in pairwise((w, 2 * w, 2 * w, 4 * w)):
        layers += [nn.Conv2d(a, b, 3, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def autoencoder(w):
    return nn.Sequential(
        nn.Conv2d(3, w, 3, 2, 1), nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, w, 3, 1, 1), nn.BatchNorm2d(w), nn.ReLU(),
        nn.ConvTranspose2d(w, w, 2, 2), nn.BatchNorm2d(w), nn.LeakyReLU(0.1), nn.Conv2d(w, 3, 1), nn.Tanh(),
    )  # fmt: skip


NETWORKS = {  # name → (network of a width, sizes of a sample)
    "dcgan generator": (nets.generator, (100, 1, 1)),
    "dcgan discriminator": (nets.discriminator, (3, 64, 64)),
    "wgan critic": (lambda w: nets.discriminator(w, False), (3, 64, 64)),
    "leaky convolutions": (convolutions, (3, 32, 32)),
    "straight critic": (Straight, (3, 32, 32)),
    "resnet critic": (resnet, (3, 32, 32)),
    "unet": (unet, (3, 32, 32)),
    "patch critic": (patch, (3, 64, 64)),
    "patch critic, instance": (lambda w: patch(w, nn.InstanceNorm2d), (3, 64, 64)),
    "1x1 critic": (pixels, (3, 32, 32)),
    "translator": (translator, (3, 32, 32)),
    "stride 1 decoder": (smooth, (3, 32, 32)),
    "autoencoder": (autoencoder, (3, 32, 32)),
}
SIZES = ((4, 1), (16, 4), (32, 32))  # width, batch


def calls(net, x, training, precision):
    """One call of it."""
    net.train(training)

    def call():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"), torch.set_grad_enabled(training):
            y = net(x)
        if training:
            y.float().square().sum().backward()

    return call


def ratio(plain, fused, rounds):
    """(plain seconds, plain/fused): the medians of calls in turn, of which the first changes too."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter  # others on the machine count less
    ways, times = (plain, fused), ([], [])
    gc.disable()
    for way in ways:
        way(), way()
    for i in range(2 * rounds):
        for k in (i % 2, 1 - i % 2):
            start = clock()
            ways[k]()
            times[k].append(clock() - start)
    gc.enable()
    medians = [statistics.median(each) for each in times]
    return medians[0], medians[0] / medians[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {}
    for name, (make, sizes) in NETWORKS.items():
        for width, batch in SIZES if options.only in name else ():
            net = make(width)
            fused, x = copy.deepcopy(net), torch.randn(batch if batch > 1 else 2, *sizes)
            ganfast.fuse(fused)
            for precision in ("fp32", "bf16"):
                for training in (True, False):
                    arguments = x, training, precision
                    plain, gain = ratio(calls(net, *arguments), calls(fused, *arguments), options.rounds)
                    mode = f"{'training' if training else 'evaluation'} {precision}"
                    found.setdefault(mode, []).append(gain)
                    print(f"{name:24} width {width:3} batch {len(x):3} {mode:16} {1e3 * plain:8.2f} ms {gain:6.3f}×")
    for mode, gains in found.items():
        print(f"{mode:16} least {min(gains):.3f}× median {statistics.median(gains):.3f}× largest {max(gains):.3f}×")


if __name__ == "__main__":
    main()
