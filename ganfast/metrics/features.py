"""The network whose features scores compare: published weights that a person has, or a classifier of the data."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics import cache
from ganfast.metrics.lenet import LeNet, fitted, normalise
from ganfast.models.inception import InceptionV3
from ganfast.models.mobilenet import MobileNetV2
from ganfast.models.published import fitting, read
from ganfast.models.squeezenet import SqueezeNet
from ganfast.models.vgg import VGG16
from ganfast.models.vit import DINOv2

BATCH = 64  # images at once
VITS = {384: ("dinov2-vits", 12), 768: ("dinov2-vitb", 12), 1024: ("dinov2-vitl", 24)}  # width → name, blocks
# a key of the file that tells the network → its name and class
KNOWN = {
    "Mixed_7c.branch_pool.conv.weight": ("inception", InceptionV3),
    "features.18.0.weight": ("mobilenet", MobileNetV2),
    "fire9.conv3x3_2.weight": ("squeezenet", SqueezeNet),
    "conv4_1.weight": ("vgg16", VGG16),
}


@dataclass(frozen=True)
class Network:
    """``module``: images [B, C, H, W] in [−1, 1] → (features [B, F], logits [B, K] or None); ``weights``: a hash."""

    name: str
    module: nn.Module
    weights: str

    @property
    def frechet(self) -> str:
        """Only Inception's Fréchet distance is called FID."""
        return "fid-inception" if self.name == "inception" else f"frechet-{self.name}"

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def to(self, device: str | torch.device) -> "Network":
        self.module.to(device, memory_format=torch.channels_last)  # takes half of the time on a CPU
        return self


class OfLeNet(nn.Module):
    """The features and logits of a classifier of the data."""

    def __init__(self, classifier: LeNet):
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.classifier.features(images)
        return features, self.classifier[-1](features)


def of_data(data: Dataset, device: str | torch.device = "cpu", progress: bool = False) -> Network:
    """The classifier trained on ``data``, which needs labels; kept in the cache folder."""
    return of_classifier(fitted(data, progress=progress).network).to(device)


def of_classifier(classifier: LeNet) -> Network:
    return Network("lenet", OfLeNet(classifier).eval(), cache.digest(classifier.state_dict()))


def published(path: str | Path, device: str | torch.device = "cpu") -> Network:
    """The network of the weights at ``path``, known by the names of its tensors.

    A .safetensors, .npz or .pth file (read without running code) of Inception-v3 (pt_inception-2015-12-05, as
    pytorch-fid and torch-fidelity have it), MobileNetV2 (torchvision), SqueezeNet 1.0 (the published Caffe model),
    VGG16 up to conv4_1 (Caffe's names) or DINOv2 ViT-S, -B or -L/14 (Meta). Raises InputError where it is none of
    these.
    """
    return built(path, read(path)).to(device)


def built(path: str | Path, tensors: dict[str, Tensor]) -> Network:
    """The network that the names of ``tensors`` tell."""
    width = tensors["cls_token"].shape[-1] if "cls_token" in tensors else None
    found = [KNOWN[key] for key in KNOWN if key in tensors]
    if width in VITS:
        name, depth = VITS[width]
        found = [(name, lambda: DINOv2(width, depth))]
    if not found:
        raise InputError(
            f"--features {path}: holds no network that is known here ({', '.join(list(tensors)[:3])}, …): give "
            "weights of Inception-v3 (as pytorch-fid has them), MobileNetV2, SqueezeNet 1.0, VGG16 or DINOv2 ViT-S/B/L."
        )
    name, make = found[0]
    with torch.device("meta"):  # draws no random numbers for weights that are replaced
        module = make()
    fitting(module, tensors, name, f"--features {path}", assign=True)
    return Network(name, module.eval().requires_grad_(False), cache.digest(module.state_dict()))


# -- features of images ------------------------------------------------------------------------------------------------


def extract(network: Network, batches: Iterator[Tensor], count: int, progress: bool = False) -> tuple[Tensor, ...]:
    """(features fp32 [count, F], probabilities [count, K]) of batches of images in [−1, 1]; K = 0 without logits."""
    features, probabilities = [], []
    bar = tqdm(total=count, desc=network.name, unit="img", delay=1, leave=False, disable=not progress)
    with torch.no_grad(), bar:
        for images in batches:
            found, logits = network.module(images.to(network.device, memory_format=torch.channels_last))
            features.append(found.float())
            probabilities.append(found.new_zeros(len(found), 0) if logits is None else logits.float().softmax(1))
            bar.update(len(images))
    return torch.cat(features), torch.cat(probabilities)


def of_rows(network: Network, data: Dataset, rows: Tensor, progress: bool = False) -> tuple[Tensor, ...]:
    """Of the images at ``rows`` of ``data``, of which no more than a batch is in memory at once."""
    return extract(network, (normalise(data.samples[part]) for part in rows.split(BATCH)), len(rows), progress)


def of_images(network: Network, images: Tensor, progress: bool = False) -> tuple[Tensor, ...]:
    """Of generated images [N, C, H, W], rounded to the 256 levels that real ones have."""
    batches = (part.float().add(1).mul(127.5).round().clamp(0, 255).div(127.5).sub(1) for part in images.split(BATCH))
    return extract(network, batches, len(images), progress)
