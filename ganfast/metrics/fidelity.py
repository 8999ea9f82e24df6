"""How near images come to the true ones: L1, PSNR and SSIM, beside those of trivial answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ganfast.metrics import colors

WINDOW, SIGMA = 11, 1.5  # of SSIM: pixels, and a Gaussian over them
C1, C2 = 0.01**2, 0.03**2

Measure = Callable[[Tensor, Tensor], Tensor]
"""(images, true ones) [B, C, H, W] in [−1, 1] → a number [B] for each"""


@dataclass(frozen=True)
class FidelityReport:
    """Means over ``count`` images of each measure of answers, and by name of trivial answers."""

    count: int
    values: dict[str, float]
    trivial: dict[str, dict[str, float]]
    said: ClassVar[str] = "images beside the true ones"

    def __str__(self):
        rows = {"generated": self.values, **self.trivial}
        width, columns = max(map(len, rows)), [max(10, len(name) + 2) for name in self.values]
        return "\n".join([
            f"{self.count} {self.said}",
            " " * width + "".join(f"{name:>{each}}" for name, each in zip(self.values, columns)),
            *(
                f"{name:<{width}}" + "".join(f"{value:>{each}.4g}" for value, each in zip(found.values(), columns))
                for name, found in rows.items()
            ),
        ])  # fmt: skip


def l1(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute differences [B], of pixels in [0, 1]."""
    return (images - targets).abs().flatten(1).mean(1) / 2


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratios [B] in dB: 10 log₁₀(2² / mean squared error) over all channels; 106 dB at most."""
    return 10 * torch.log10(4 / (images - targets).square().flatten(1).mean(1).clamp(min=1e-10))


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Structural similarities [B] (Wang et al. 2004, "Image quality assessment", equation 13), means over channels.

        (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))

    over Gaussian windows of 11×11 pixels, σ = 1.5, that lie within the image; smaller images have a smaller window.
    """
    size = min(WINDOW, *(side - (side + 1) % 2 for side in images.shape[2:]))
    at = torch.arange(size, device=images.device, dtype=torch.float32) - size // 2
    window = torch.exp(-at.square() / (2 * SIGMA**2))
    window = window / window.sum()
    x, y = (each.float().add(1).div(2).flatten(0, 1)[:, None] for each in (images, targets))

    def smooth(planes: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(planes, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    mx, my, xx, yy, xy = smooth(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    vx, vy, covariance = xx - mx * mx, yy - my * my, xy - mx * my
    found = (2 * mx * my + C1) * (2 * covariance + C2) / ((mx * mx + my * my + C1) * (vx + vy + C2))
    return found.flatten(1).mean(1).view(len(images), -1).mean(1)


MEASURES: dict[str, Measure] = {"l1": l1, "psnr": psnr, "ssim": ssim}


def means(images: Tensor, targets: Tensor, measures: Mapping[str, Measure] = MEASURES) -> dict[str, float]:
    """Each measure's mean over [N, C, H, W], a few images at once, and the distance of their colours.

    Images that there are no more than once serve all.
    """
    images = images.expand(len(targets), -1, -1, -1)
    parts = list(zip(images.split(16), targets.split(16)))
    found = {name: torch.cat([measure(*part) for part in parts]).mean().item() for name, measure in measures.items()}
    return found | {"colors": colors.distance(images, targets)} if images.shape[1] in (1, 3) else found


def fidelity_report(
    images: Tensor, targets: Tensor, trivial: Mapping[str, Tensor], measures: Mapping[str, Measure] = MEASURES
) -> FidelityReport:
    """Of answers [N, C, H, W] to the true images; of ``trivial`` answers, and of the true ones' mean."""
    others = {**trivial, "mean": targets.mean(0, keepdim=True)}
    return FidelityReport(
        len(targets),
        means(images, targets, measures),
        {name: means(found, targets, measures) for name, found in others.items()},
    )
