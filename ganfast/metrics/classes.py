"""What a small classifier, trained on the labelled data in seconds, sees in the generator's samples."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ganfast.data import Dataset
from ganfast.errors import InputError


@dataclass(frozen=True)
class ClassReport:
    """Shares and confidences are in [0, 1]; ``distance`` is the total variation between the two rows of shares."""

    accuracy: float  # of the classifier, on real samples held out from it
    real_shares: tuple[float, ...]
    fake_shares: tuple[float, ...]
    real_confidence: float  # mean probability of the likeliest class, on the held-out real samples
    fake_confidence: float
    distance: float
    agreement: float | None = None  # share of samples that the classifier assigns to the class they were made of

    def __str__(self):
        classes = range(len(self.real_shares))
        agreed = self.agreement
        own = [] if agreed is None else [f"samples that it assigns to their own class     {agreed:.1%}"]
        return "\n".join(
            [
                f"classifier's accuracy on held-out real samples {self.accuracy:.1%}",
                f"its mean confidence on real samples            {self.real_confidence:.1%}",
                f"its mean confidence on generated samples       {self.fake_confidence:.1%}",
                *own,
                "class           " + " ".join(f"{c:>6}" for c in classes),
                "share, real     " + " ".join(f"{share:>6.1%}" for share in self.real_shares),
                "share, generated" + " ".join(f"{share:>6.1%}" for share in self.fake_shares),
                f"distance of the two (total variation, 0 is equal) {self.distance:.3f}",
            ]
        )


def check_classes(data: Dataset, shape: tuple[int, ...]) -> None:
    """``InputError`` where no classifier can learn from ``data`` to judge samples of ``shape``."""
    if data.kind != "images" or data.labels is None:
        why = f" ({data.absent['labels']})" if "labels" in data.absent else ""
        raise InputError(f"{data.name} has no labelled images{why}: give labelled images to evaluate against (--data).")
    if tuple(shape) != data.shape:
        raise InputError(f"the generator makes samples of {tuple(shape)}, {data.name} holds {data.shape}.")
    if len(data.labels.unique()) < 2:
        count = f"{len(data)} image{'s' if len(data) > 1 else ''}"
        raise InputError(
            f"{data.name} has {count} of one class, and a classifier needs two: give more classes (--data)."
        )


def class_report(
    data: Dataset,
    fakes: Tensor,
    classes: Tensor | None = None,
    steps: int = 300,
    seed: int = 0,
    progress: bool = False,
) -> ClassReport:
    """Train a LeNet-like classifier on four fifths of ``data``, judge the last fifth and ``fakes`` [N, C, H, W].

    ``classes`` int64 [N] are those that the samples were made of, where the recipe is given them. ``data`` needs
    labels of two classes or more; images are compared in [−1, 1] as the generator makes them. Repeatable by ``seed``.
    """
    check_classes(data, fakes.shape[1:])
    if classes is not None and tuple(classes.shape) != (len(fakes),):
        raise InputError(f"classes: got {list(classes.shape)}, needs one for each of the {len(fakes)} samples.")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:12_000]  # enough, and seconds
    held_out = max(len(order) // 5, 1)
    images, labels = normalise(data.samples[order]), data.labels[order]
    classifier = train(images[held_out:], labels[held_out:], data.num_classes, steps, seed, progress)
    real = probabilities(classifier, images[:held_out])
    fake = probabilities(classifier, fakes.cpu())
    real_shares = torch.bincount(data.labels, minlength=data.num_classes) / len(data)
    fake_shares = torch.bincount(fake.argmax(1), minlength=data.num_classes) / len(fake)
    return ClassReport(
        accuracy=float((real.argmax(1) == labels[:held_out]).float().mean()),
        real_shares=tuple(real_shares.tolist()),
        fake_shares=tuple(fake_shares.tolist()),
        real_confidence=float(real.amax(1).mean()),
        fake_confidence=float(fake.amax(1).mean()),
        distance=float((real_shares - fake_shares).abs().sum() / 2),
        agreement=None if classes is None else float((fake.argmax(1) == classes.cpu()).float().mean()),
    )


def normalise(samples: Tensor) -> Tensor:
    """uint8 [N, H, W, C] → fp32 [N, C, H, W] in [−1, 1]."""
    return samples.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def train(images: Tensor, labels: Tensor, classes: int, steps: int, seed: int, progress: bool) -> nn.Module:
    """Adam on batches of 128 for ``steps`` steps, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = images.shape[1]
        classifier = nn.Sequential(
            nn.Conv2d(channels, 16, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(4), nn.Flatten(),
            nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.25), nn.Linear(128, classes),
        )  # fmt: skip
        optimizer = torch.optim.Adam(classifier.parameters(), 2e-3)
        for _ in tqdm(range(steps), "classifier", unit="step", delay=1, leave=False, disable=not progress):
            rows = torch.randint(len(images), (128,))
            optimizer.zero_grad()
            F.cross_entropy(classifier(images[rows]), labels[rows]).backward()
            optimizer.step()
    return classifier.eval()


@torch.no_grad()
def probabilities(classifier: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([classifier(part).softmax(1) for part in images.split(512)])
