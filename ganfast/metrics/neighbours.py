"""The training images that are nearest to samples, by pixels and by features."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ganfast.data import Dataset
from ganfast.metrics import features
from ganfast.metrics.classes import check_shape
from ganfast.metrics.features import BATCH, Network
from ganfast.metrics.lenet import normalise

STRETCH = 16 * BATCH  # images of the data at once


@dataclass(frozen=True)
class Neighbours:
    """Of each of N samples: row of the data and distance, by pixels (root mean square, of 2) and by features."""

    pixels: tuple[Tensor, Tensor]
    features: tuple[Tensor, Tensor]

    def __str__(self):
        return "\n".join(
            f"nearest training image by {name:<8} at {distances.min():.4g} at least, {distances.mean():.4g} on average"
            for name, (_, distances) in (("pixels", self.pixels), ("features", self.features))
        )


def neighbours(data: Dataset, fakes: Tensor, network: Network, progress: bool = False) -> Neighbours:
    """Of ``fakes`` [N, C, H, W] in [−1, 1], in all of ``data``, one pass over it, a stretch at a time."""
    check_shape(data, fakes.shape[1:])
    own, _ = features.of_images(network, fakes, progress)
    flat = fakes.cpu().float().flatten(1)
    best = [(torch.full((len(fakes),), torch.inf), torch.zeros(len(fakes), dtype=torch.int64)) for _ in range(2)]
    for start in range(0, len(data), STRETCH):
        rows = torch.arange(start, min(start + STRETCH, len(data)))
        theirs, _ = features.of_rows(network, data, rows)
        found = (
            torch.cdist(flat, normalise(data.samples[rows]).flatten(1)) / flat.shape[1] ** 0.5,
            torch.cdist(own, theirs).cpu(),
        )
        for k, distances in enumerate(found):
            least, at = distances.min(1)
            nearer = least < best[k][0]
            best[k] = torch.where(nearer, least, best[k][0]), torch.where(nearer, at + start, best[k][1])
    (by_pixels, by_features) = ((rows, distances) for distances, rows in best)
    return Neighbours(by_pixels, by_features)
