"""Whether pictures made of label maps show what these say, by a segmentation network trained on real pairs."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ganfast.data import Dataset
from ganfast.metrics import cache
from ganfast.metrics.fidelity import FidelityReport
from ganfast.metrics.lenet import normalise

STEPS, BATCH, WIDTH, RATE = 400, 16, 16, 3e-3


class SegmentationReport(FidelityReport):
    """Pixel accuracy and mean IoU of ``count`` pictures, and of real ones: as much as can be expected."""

    said = "pictures, by a segmentation network trained on real ones"


class Segmenter(nn.Module):
    """fp32 [N, C, H, W] in [−1, 1] → logits [N, K, H, W]: a small U-Net (Ronneberger et al. 2015, arXiv:1505.04597)."""

    def __init__(self, channels: int, classes: int, width: int = WIDTH):
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width]
        self.down = nn.ModuleList(convolution(a, b) for a, b in pairwise(widths))
        self.up = nn.ModuleList(convolution(a + b, b) for a, b in zip(widths[:1:-1], widths[-2:0:-1]))
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        x, passed = images, []
        for layer in self.down:
            x = layer(F.max_pool2d(x, 2) if passed else x)
            passed.append(x)
        for layer, beside in zip(self.up, passed[-2::-1]):
            x = layer(torch.cat([F.interpolate(x, beside.shape[2:]), beside], 1))
        return self.last(x)


def convolution(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


def fitted(data: Dataset, steps: int = STEPS, progress: bool = False) -> Segmenter:
    """The network of the images and maps of ``data``, in evaluation mode; kept in the cache folder.

    Cross-entropy, Adam with a rate that falls to 0, batches of 16; classes weigh by one over the square root of how
    many pixels they have.
    """
    name = f"segmenter-{cache.key(data.fingerprint(), steps, WIDTH, RATE)}"
    classes = len(data.names["maps"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Segmenter(data.shape[0], classes)
        if found := cache.read(name):
            network.load_state_dict(found[0])
            return network.eval()
        share = torch.bincount(data.columns["maps"].flatten().int(), minlength=classes).clamp(min=1).float()
        weights, optimizer = share.rsqrt() / share.rsqrt().mean(), torch.optim.Adam(network.parameters(), RATE)
        for step in tqdm(range(steps), "segmentation", unit="step", delay=1, leave=False, disable=not progress):
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
            rows = torch.randint(len(data), (BATCH,))
            optimizer.zero_grad()
            logits = network(normalise(data.samples[rows]))
            F.cross_entropy(logits, data.columns["maps"][rows].squeeze(3).long(), weights).backward()
            optimizer.step()
    cache.write(name, network.state_dict(), {"data": data.name})
    return network.eval()


def colours(data: Dataset) -> Tensor:
    """The mean colour [K, C], in [−1, 1], of the pixels of each class of ``data``."""
    maps, samples = data.columns["maps"].flatten().int(), data.samples.flatten(0, 2)
    sums = [torch.bincount(maps, channel.float(), len(data.names["maps"])) for channel in samples.unbind(1)]
    counts = torch.bincount(maps, minlength=len(data.names["maps"])).clamp(min=1)
    return (torch.stack(sums, 1) / counts[:, None] / 127.5 - 1).float()


def painted(maps: Tensor, colours: Tensor) -> Tensor:
    """int64 [N, H, W] → [N, C, H, W]: each pixel in its class's colour."""
    return colours[maps].movedim(3, 1)


@torch.no_grad()
def agreement(network: Segmenter, images: Tensor, maps: Tensor) -> dict[str, float]:
    """Of images [N, C, H, W] whose maps are int64 [N, H, W]: the share of right pixels; the mean over classes that
    there are of intersection over union, over all images."""
    classes = network.last.out_channels
    found = torch.cat([network(part).argmax(1) for part in images.split(64)])
    pairs = torch.bincount((maps * classes + found).flatten(), minlength=classes**2).view(classes, classes).double()
    right, union = pairs.diag(), pairs.sum(0) + pairs.sum(1) - pairs.diag()
    return {
        "pixel_accuracy": (right.sum() / pairs.sum()).item(),
        "mean_iou": (right / union)[pairs.sum(1) > 0].mean().item(),
    }


def segmentation_report(images: Tensor, real: Dataset, train: Dataset, progress: bool = False) -> SegmentationReport:
    """Of ``images``, made of the first maps of ``real``; what judges them has learned from the pairs of ``train``."""
    network = fitted(train, progress=progress)
    maps = real.columns["maps"][: len(images)].squeeze(3).long()
    others = {"real": normalise(real.samples[: len(images)]), "class colours": painted(maps, colours(train))}
    return SegmentationReport(
        len(images),
        agreement(network, images, maps),
        {name: agreement(network, found, maps) for name, found in others.items()},
    )
