"""The DCGAN that everybody starts from, of plain torch modules, trained with and without ganfast's lines.

    python bench/drop_in.py [--data SRC] [--steps N] [--width W] [--write docs/drop-in.md]

Both runs start from the same weights and see the same batches; the second has ``ganfast.fuse`` and
``ganfast.capture``. A third, plain one starts from weights one rounding away: what fp32 leaves open. Prints, or writes
into the page, a table of the losses.
"""

import argparse
import re
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import ganfast
from ganfast.data import Sampler, open_dataset

NUDGE = 1 + 2.0**-23  # one rounding of fp32
SHOWN = (1, 2, 3, 5, 10, 20, 30, 40, 50, 75, 100)


class Generator(nn.Module):
    """z [N, latent, 1, 1] → images [N, channels, 64, 64]."""

    def __init__(self, latent=100, width=64, channels=3):
        super().__init__()
        widths = [latent, 8 * width, 4 * width, 2 * width, width]
        layers = []
        for i, (a, b) in enumerate(pairwise(widths)):
            stride, padding = (2, 1) if i else (1, 0)  # 1 → 4 → 8 → 16 → 32
            layers += [nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, z):
        return self.main(z)


class Discriminator(nn.Module):
    """images [N, channels, 64, 64] → probabilities [N]."""

    def __init__(self, width=64, channels=3):
        super().__init__()
        layers = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for factor in (1, 2, 4):
            a, b = factor * width, 2 * factor * width
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2, inplace=True)]
        layers += [nn.Conv2d(8 * width, 1, 4, bias=False), nn.Sigmoid()]
        self.main = nn.Sequential(*layers)

    def forward(self, images):
        return self.main(images).flatten()


def initialize(module):
    name = type(module).__name__
    if "Conv" in name:
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif "BatchNorm" in name:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def train(fast, dataset, steps, width=64, batch=32, latent=100, scale=1.0):
    """[(discriminator's loss, generator's loss)] of each step; all weights start multiplied by ``scale``."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    channels = dataset.samples.shape[-1]
    netG, netD = Generator(latent, width, channels), Discriminator(width, channels)
    netG.apply(initialize)
    netD.apply(initialize)
    netG.to(device), netD.to(device)
    with torch.no_grad():
        for p in [*netG.parameters(), *netD.parameters()]:
            p *= scale
    if fast:
        ganfast.fuse(netG), ganfast.fuse(netD)
    optimizerD, optimizerG = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (netD, netG))
    ones, zeros = torch.ones(batch, device=device), torch.zeros(batch, device=device)
    bce = nn.functional.binary_cross_entropy

    def step(real):
        images = netG(torch.randn(batch, latent, 1, 1, device=device))
        netD.zero_grad()
        loss_d = bce(netD(real), ones) + bce(netD(images.detach()), zeros)
        loss_d.backward()
        optimizerD.step()
        netG.zero_grad()
        loss_g = bce(netD(images), ones)
        loss_g.backward()
        optimizerG.step()
        return loss_d, loss_g

    sampler = Sampler(dataset, batch, seed=0)
    if fast:
        step = ganfast.capture(step, torch.zeros(batch, channels, 64, 64, device=device))
    return [tuple(loss.item() for loss in step(sampler.next()["images"].to(device))) for _ in range(steps)]


def table(plain, fused, nudged):
    """The losses in Markdown, with the largest relative differences from the plain ones so far."""
    rows = [
        "| step | loss D, plain | loss D, fused | loss G, plain | loss G, fused | fused differs | nudged differs |",
        "|---|---|---|---|---|---|---|",
    ]
    far = [0.0, 0.0]
    for step, (a, b, c) in enumerate(zip(plain, fused, nudged), 1):
        far = [max(f, *(abs(y - x) / abs(x) for x, y in zip(a, other))) for f, other in zip(far, (b, c))]
        if step in SHOWN:
            rows.append(f"| {step} | {a[0]:.6f} | {b[0]:.6f} | {a[1]:.6f} | {b[1]:.6f} | {far[0]:.1e} | {far[1]:.1e} |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="what ganfast.data.open_dataset opens, at 64 pixels")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--write", type=Path, help="a page whose part between the marks is replaced")
    options = parser.parse_args()
    dataset = open_dataset(options.data, size=64)
    sizes = {"steps": options.steps, "width": options.width, "batch": options.batch}
    plain, fused = (train(fast, dataset, **sizes) for fast in (False, True))
    nudged = train(False, dataset, **sizes, scale=NUDGE)
    text = (
        f"{options.steps} steps on `{dataset.name}`, width {options.width}, batch {options.batch}, fp32, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, ganfast {ganfast.__version__}:\n\n"
        + table(plain, fused, nudged)
    )
    print(text)
    if options.write:
        marks = re.compile(r"(<!-- losses: .*? -->\n).*?(<!-- end of losses -->)", re.S)
        page, found = marks.subn(lambda m: f"{m[1]}{text}\n{m[2]}", options.write.read_text())
        if not found:
            raise SystemExit(f"{options.write} has no marks for the table")
        options.write.write_text(page)


if __name__ == "__main__":
    main()
