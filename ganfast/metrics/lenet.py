"""A small classifier trained on labelled images in seconds, once: kept in the cache folder by the data and options."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ganfast.data import Dataset
from ganfast.metrics import cache

ENOUGH = 12_000  # images of the quick one


class LeNet(nn.Sequential):
    """fp32 [N, C, H, W] in [−1, 1] → logits [N, classes]; ``features`` are what the last layer sees."""

    def __init__(self, channels: int, classes: int):
        super().__init__(
            nn.Conv2d(channels, 16, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(4), nn.Flatten(),
            nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.25), nn.Linear(128, classes),
        )  # fmt: skip

    def features(self, images: Tensor) -> Tensor:
        """[N, 128]."""
        for layer in list(self)[:-2]:
            images = layer(images)
        return images


@dataclass(frozen=True)
class Fitted:
    """``network`` in evaluation mode, its ``accuracy`` on the rows ``held_out`` that it has not seen."""

    network: LeNet
    held_out: Tensor
    accuracy: float


def fitted(
    data: Dataset, steps: int = 300, limit: int = ENOUGH, seed: int = 0, progress: bool = False, held_out: int = 5
) -> Fitted:
    """The classifier of ``data``: trained on all but the ``held_out``-th part of ``limit`` rows drawn by ``seed``."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:limit]
    test, train = order.tensor_split([max(len(order) // held_out, 1)])
    name = f"lenet-{cache.key(data.fingerprint(), steps, limit, seed, held_out)}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LeNet(data.shape[0], data.num_classes)
        found = cache.read(name)
        if found:
            network.load_state_dict(found[0])
            return Fitted(network.eval(), test, found[1]["accuracy"])
        learn(network, data, train, steps, progress)
    network.eval()
    right = probabilities(network, normalise(data.samples[test])).argmax(1) == data.labels[test]
    accuracy = float(right.float().mean())
    cache.write(name, network.state_dict(), {"accuracy": accuracy, "data": data.name})
    return Fitted(network, test, accuracy)


def learn(network: LeNet, data: Dataset, rows: Tensor, steps: int, progress: bool) -> None:
    """Adam on batches of 128 of ``rows`` for ``steps`` steps."""
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in tqdm(range(steps), "classifier", unit="step", delay=1, leave=False, disable=not progress):
        batch = rows[torch.randint(len(rows), (128,))]
        optimizer.zero_grad()
        F.cross_entropy(network(normalise(data.samples[batch])), data.labels[batch]).backward()
        optimizer.step()


def normalise(samples: Tensor) -> Tensor:
    """uint8 [N, H, W, C] → fp32 [N, C, H, W] in [−1, 1]."""
    return samples.permute(0, 3, 1, 2).float().div(127.5).sub(1)


@torch.no_grad()
def probabilities(classifier: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([classifier(part).softmax(1) for part in images.split(512)])
