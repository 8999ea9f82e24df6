"""What a small classifier, trained on the labelled data in seconds, sees in the generator's samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics import distances, features
from ganfast.metrics.features import Network
from ganfast.metrics.lenet import fitted, normalise, probabilities


@dataclass(frozen=True)
class ClassReport:
    """Shares and confidences are in [0, 1]; ``distance`` is the total variation between the two rows of shares.

    From ``agreement`` on they are None where the classes that samples were made of are not known. ``within``: squared
    Fréchet distances over the classifier's features; where there are too few samples of a class its number is None.
    """

    accuracy: float  # of the classifier, on real samples held out from it
    real_shares: tuple[float, ...]
    fake_shares: tuple[float, ...]
    real_confidence: float  # mean probability of the likeliest class, on the held-out real samples
    fake_confidence: float
    distance: float
    agreement: float | None = None  # share of samples that the classifier assigns to the class they were made of
    agreements: tuple[float | None, ...] | None = None  # the same of each class
    within: tuple[float | None, ...] | None = None  # within each class
    within_floors: tuple[float | None, ...] | None = None  # of real images in their place
    intra: float | None = None  # the means of these two: intra-FID, over the classifier's features
    intra_floor: float | None = None

    def __str__(self):
        classes = range(len(self.real_shares))
        rows = {
            "agreement": (self.agreements, ".1%"),
            "Fréchet": (self.within, ".4g"),
            "Fréchet, real": (self.within_floors, ".4g"),
        }
        agreed = self.agreement
        own = [] if agreed is None else [f"samples that it assigns to their own class     {agreed:.1%}"]
        if self.intra is not None:
            own += [
                f"Fréchet distance within a class, mean          {self.intra:.2f}, of real ones {self.intra_floor:.2f}"
            ]
        return "\n".join(
            [
                f"classifier's accuracy on held-out real samples {self.accuracy:.1%}",
                f"its mean confidence on real samples            {self.real_confidence:.1%}",
                f"its mean confidence on generated samples       {self.fake_confidence:.1%}",
                *own,
                "class           " + " ".join(f"{c:>6}" for c in classes),
                "share, real     " + " ".join(f"{share:>6.1%}" for share in self.real_shares),
                "share, generated" + " ".join(f"{share:>6.1%}" for share in self.fake_shares),
                *(
                    f"{name:<16}" + " ".join(f"{'-' if n is None else format(n, form):>6}" for n in numbers)
                    for name, (numbers, form) in rows.items()
                    if numbers
                ),
                f"distance of the two (total variation, 0 is equal) {self.distance:.3f}",
            ]
        )


def check_classes(data: Dataset, shape: tuple[int, ...]) -> None:
    """``InputError`` where no classifier can learn from ``data`` to judge samples of ``shape``."""
    if data.kind != "images" or data.labels is None:
        why = f" ({data.absent['labels']})" if "labels" in data.absent else ""
        raise InputError(
            f"{data.name} has no labelled images{why}: give labelled images to evaluate against (--data), or the "
            "weights of a feature network (--features)."
        )
    check_shape(data, shape)
    if len(data.labels.unique()) < 2:
        count = f"{len(data)} image{'s' if len(data) > 1 else ''}"
        raise InputError(
            f"{data.name} has {count} of one class, and a classifier needs two: give more classes (--data)."
        )


def check_shape(data: Dataset, shape: tuple[int, ...]) -> None:
    """``InputError`` where samples of ``shape`` are not of the shape of ``data``."""
    if tuple(shape) != data.shape:
        raise InputError(f"the generator makes samples of {tuple(shape)}, {data.name} holds {data.shape}.")


def class_report(
    data: Dataset,
    fakes: Tensor,
    classes: Tensor | None = None,
    steps: int = 300,
    seed: int = 0,
    progress: bool = False,
) -> ClassReport:
    """Train a LeNet-like classifier on four fifths of ``data``, judge the last fifth and ``fakes`` [N, C, H, W].

    It is kept in the cache folder, so that it is trained once.

    ``classes`` int64 [N] are those that the samples were made of, where the recipe is given them: agreements and
    distances within classes (Miyato and Koyama 2018, arXiv:1802.05637) follow. ``data`` needs labels of two classes or
    more; images are compared in [−1, 1] as the generator makes them. Repeatable by ``seed``.
    """
    check_classes(data, fakes.shape[1:])
    if classes is not None and tuple(classes.shape) != (len(fakes),):
        raise InputError(f"classes: got {list(classes.shape)}, needs one for each of the {len(fakes)} samples.")
    fit = fitted(data, steps, seed=seed, progress=progress)
    real = probabilities(fit.network, normalise(data.samples[fit.held_out]))
    fake = probabilities(fit.network, fakes.cpu())
    real_shares = torch.bincount(data.labels, minlength=data.num_classes) / len(data)
    found = fake.argmax(1)
    fake_shares = torch.bincount(found, minlength=data.num_classes) / len(fake)
    return ClassReport(
        accuracy=fit.accuracy,
        real_shares=tuple(real_shares.tolist()),
        fake_shares=tuple(fake_shares.tolist()),
        real_confidence=float(real.amax(1).mean()),
        fake_confidence=float(fake.amax(1).mean()),
        distance=float((real_shares - fake_shares).abs().sum() / 2),
        **(
            {}
            if classes is None
            else of_classes(data, fakes, classes.cpu(), found, features.of_classifier(fit.network))
        ),
    )


def of_classes(data: Dataset, fakes: Tensor, classes: Tensor, found: Tensor, network: Network) -> dict:
    """The fields of a report that need the ``classes`` samples were made of; ``found`` are the classifier's.

    Of a class, n samples, at most half of its real images, are compared with n real ones drawn by a fixed seed, and
    these with n others for the floor.
    """
    random = torch.Generator().manual_seed(distances.SEED)
    right, of_fakes = (found == classes).float(), features.of_images(network, fakes)[0]
    agreements, within, floors = [], [], []
    for c in range(data.num_classes):
        mine = classes == c
        real = (data.labels == c).nonzero().flatten()
        n = min(int(mine.sum()), len(real) // 2)
        agreements.append(float(right[mine].mean()) if mine.any() else None)
        enough = n >= 2
        rows = real[torch.randperm(len(real), generator=random)[: 2 * n]]
        a, b = features.of_rows(network, data, rows)[0].tensor_split([n]) if enough else (None, None)
        within.append(distances.frechet(a, of_fakes[mine][:n]) if enough else None)
        floors.append(distances.frechet(a, b) if enough else None)
    return {
        "agreement": float(right.mean()), "agreements": tuple(agreements), "within": tuple(within),
        "within_floors": tuple(floors), "intra": mean(within), "intra_floor": mean(floors),
    }  # fmt: skip


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
