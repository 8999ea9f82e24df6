"""Parzen window estimates of log-likelihood, as the first papers on GANs have them.

The protocol of Breuleux et al. 2011 and Goodfellow et al. 2014 (arXiv:1406.2661): a Gaussian of one σ on each of many
samples, σ chosen on validation rows, the mean log density of test rows. Theis et al. 2016 (arXiv:1511.01844) show that
it says little of a model: it is far from the log-likelihood in so many dimensions, and orders models wrongly.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ganfast.data import Dataset
from ganfast.data.sampler import drawn
from ganfast.errors import InputError
from ganfast.metrics.bound import standard_error
from ganfast.metrics.lenet import normalise

SAMPLES, VALIDATION, TEST = 10_000, 1_000, 10_000  # at most
SIGMAS = torch.logspace(-1.5, 0, 16, dtype=torch.float64).tolist()  # of pixels in [0, 1]
PART = 100  # test rows at once


@dataclass(frozen=True)
class ParzenReport:
    """Means over test rows in nats, of pixels in [0, 1]; ``floor`` is of real rows in the place of samples."""

    log_likelihood: float
    log_likelihood_error: float  # standard error of the mean
    sigma: float
    floor: float
    floor_error: float
    floor_sigma: float
    windows: int  # samples, and real rows in their place
    test: int
    validation: int

    def __str__(self):
        return (
            f"Parzen window log-likelihood                     {self.log_likelihood:.1f} ± "
            f"{self.log_likelihood_error:.1f} nats, σ = {self.sigma:.3g}\n"
            f"of as many real images in the place of samples   {self.floor:.1f} ± {self.floor_error:.1f} nats, "
            f"σ = {self.floor_sigma:.3g}\n"
            f"({self.windows} windows, {self.test} test rows, σ by {self.validation} others; it misleads: "
            "docs/scores.md)"
        )


def log_density(points: Tensor, samples: Tensor, sigmas: list[float], progress: bool = False) -> Tensor:
    """log (1/N) Σ_j N(x_i; s_j, σ²I) [len(sigmas), M] of points x [M, D] and samples s [N, D], in fp64."""
    points, samples = points.double(), samples.double()
    squares, found = samples.square().sum(1), []
    for part in tqdm(points.split(PART), desc="Parzen", delay=1, leave=False, disable=not progress):
        distances = torch.addmm(squares, part, samples.T, alpha=-2)  # [PART, N], less ‖x‖²
        distances += part.square().sum(1, keepdim=True)
        found.append(torch.stack([torch.logsumexp(distances / (-2 * s * s), 1) for s in sigmas]))
    constants = torch.tensor([[points.shape[1] / 2 * math.log(2 * math.pi * s * s)] for s in sigmas])
    return torch.cat(found, 1) - constants.double() - math.log(len(samples))


def estimate(samples: Tensor, validation: Tensor, test: Tensor, progress: bool = False) -> tuple[Tensor, float]:
    """(log densities [M] of ``test``, σ): σ of SIGMAS is best on ``validation``; rows of numbers [N, D]."""
    sigma = SIGMAS[int(log_density(validation, samples, SIGMAS).mean(1).argmax())]
    return log_density(test, samples, [sigma], progress)[0], sigma


def parzen_report(data: Dataset, real: Dataset, samples: Tensor, progress: bool = False) -> ParzenReport:
    """``samples`` [N, C, H, W] in [−1, 1] against rows of ``data``; ``real``: other rows that stand in for samples.

    Rows are drawn by a fixed seed: a tenth of ``data`` at most chooses σ. Where ``real`` is ``data``, a half of it
    stands in. As many samples are windows as there are real rows for it.
    """
    if len(data) < 20:
        raise InputError(f"--parzen: {data.name} has {len(data)} images, needs 20 at least: give more (--data).")
    order = drawn(data)
    if real is data:
        others, order = order.tensor_split(2)
    else:
        others = drawn(real)
    validation, test = order.tensor_split([min(VALIDATION, len(order) // 10)])
    count = min(len(samples), len(others))
    rows = [flat(normalise(data.samples[each])) for each in (validation, test[:TEST])]
    generated, sigma = estimate(flat(samples[:count]), *rows, progress)
    floor, floor_sigma = estimate(flat(normalise(real.samples[others[:count]])), *rows, progress)
    return ParzenReport(
        float(generated.mean()), standard_error(generated), sigma,
        float(floor.mean()), standard_error(floor), floor_sigma,
        count, len(rows[1]), len(rows[0]),
    )  # fmt: skip


def flat(images: Tensor) -> Tensor:
    """[N, C, H, W] in [−1, 1] → [N, D] in [0, 1]."""
    return (images.flatten(1) + 1) / 2
