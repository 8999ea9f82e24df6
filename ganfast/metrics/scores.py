"""The scores of a set of samples over the features of one network, each beside what real data scores against itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics import cache, distances, features
from ganfast.metrics.classes import check_shape
from ganfast.metrics.features import Network

VERSION = 2  # of what is cached
FEW = 20  # samples on each side that the normal approximation of C_T needs


@dataclass(frozen=True)
class ScoreReport:
    """``values`` of ``samples`` generated images against ``real`` ones; ``floors``: of real images in their place.

    The floor compares two disjoint halves of ``floor_samples`` real images each; ``trivial``: by name, of simple
    answers in their place. Names say the network.
    """

    network: str
    samples: int
    real: int
    floor_samples: int
    values: dict[str, float]
    floors: dict[str, float]
    trivial: dict[str, dict[str, float]] = field(default_factory=dict)

    def __str__(self):
        columns = {"generated": self.values, "real": self.floors, **self.trivial}
        width, widths = max(map(len, self.values)), [max(12, len(name)) for name in columns]
        rows = [
            f"{name:<{width}}"
            + "".join(
                f" {found[name]:>{each}.4g}" if name in found else " " * (each + 1)
                for found, each in zip(columns.values(), widths)
            )
            for name in self.values
        ]
        heads = "".join(f" {name:>{each}}" for name, each in zip(columns, widths))
        sizes = f"{self.samples} generated and {self.real} real images"
        floor = f"real against real: {self.floor_samples} and {self.floor_samples}" if self.floors else "no floor"
        return "\n".join([f"features of {self.network}: {sizes} ({floor})", " " * width + heads, *rows])


@dataclass(frozen=True)
class Real:
    """What scores need of the data: features and probabilities of two halves, the second unseen by the first."""

    halves: tuple[Tensor, Tensor]
    probabilities: Tensor
    floors: dict[str, float]


def usable(data: Dataset, samples: int) -> int:
    """How many of ``samples`` may be compared with as many real images and leave as many for the floor."""
    return min(samples, max(len(data) // 2, 1))


def score_report(
    data: Dataset,
    fakes: Tensor,
    network: Network,
    progress: bool = False,
    trivial: Mapping[str, Tensor] | None = None,
) -> ScoreReport:
    """Scores of ``fakes`` [N, C, H, W] in [−1, 1] against ``data``, and those of other images in their place.

    The others are real ones, the floor, and ``trivial`` [N, C, H, W], by name.

    Where ``data`` has 2 N rows or more, N of them, drawn by a fixed seed, are compared with, and N others are the
    floor: equal sizes, as all Fréchet distances are biased by them. With fewer rows than that all are compared with,
    as published FIDs do, and the floor is of halves; it is then too high. What too few rows cannot give is left out.
    Real features are computed once for a network and a size, and kept in the cache folder.
    """
    if data.kind != "images":
        raise InputError(f"{data.name} holds {data.kind}, and feature networks see images: leave --features out.")
    check_shape(data, fakes.shape[1:])
    half = usable(data, len(fakes))
    real = of_real(data, half, network, progress)
    a, b = real.halves
    against = a if half == len(fakes) else torch.cat([a, b])
    copying = min(len(a), len(b), len(fakes)) >= FEW

    def against_real(images: Tensor) -> dict[str, float]:
        found, probabilities = features.of_images(network, images, progress)
        values = computed(network, against, found, probabilities)
        if copying:
            values |= zip((f"nearer-{network.name}", f"copying-{network.name}"), distances.copying(a, b, found))
        return values

    values = against_real(fakes)
    floors = {name: floor for name, floor in real.floors.items() if name in values}
    if copying:
        floors |= {f"nearer-{network.name}": 0.5, f"copying-{network.name}": 0.0}
    if not values:
        raise InputError(f"{data.name} has {len(data)} image{'s' * (len(data) > 1)}, too few for any score: give more.")
    others = {name: against_real(images) for name, images in (trivial or {}).items()}
    return ScoreReport(network.name, len(fakes), len(against), half if real.floors else 0, values, floors, others)


def of_real(data: Dataset, half: int, network: Network, progress: bool = False) -> Real:
    """Features of 2·``half`` rows of ``data``, or of all of fewer, from the cache where it has them."""
    name = f"real-{network.name}-{cache.key(VERSION, data.fingerprint(), network.weights, half)}"
    if (kept := cache.read(name)) is None:
        random = torch.Generator().manual_seed(distances.SEED)  # not lenet's, which would part what it learnt from
        rows = torch.randperm(len(data), generator=random)[: 2 * half]
        found, probabilities = features.of_rows(network, data, rows, progress)
        a, b = found.tensor_split([half])
        floors = computed(network, a, b, probabilities[half:]) if len(b) else {}
        kept = {"features": found, "probabilities": probabilities}, floors
        cache.write(name, *kept)
    tensors, floors = kept
    found, probabilities = (tensors[name].to(network.device) for name in ("features", "probabilities"))
    return Real((found[:half], found[half:]), probabilities, floors)


def computed(network: Network, real: Tensor, fake: Tensor, probabilities: Tensor) -> dict[str, float]:
    """All scores that so many rows allow, by name; ``probabilities`` are those of ``fake``."""
    found = {}

    def add(names: str, least: int, function: Callable[[], tuple[float, ...]]) -> None:
        if min(len(real), len(fake)) >= least:
            found.update(zip([name.replace("*", network.name) for name in names.split()], function()))

    add(network.frechet, 2, lambda: (distances.frechet(real, fake),))
    add("kid-* kid-*-std", 2, lambda: distances.kernel_distance(real, fake))
    if probabilities.shape[1]:
        add("is-*", 2, lambda: distances.inception_score(probabilities))
    add("precision-* recall-*", 4, lambda: distances.precision_recall(real, fake))
    add("density-* coverage-*", 6, lambda: distances.density_coverage(real, fake))
    return found
