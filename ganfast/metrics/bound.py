"""The variational bound of models that have one: the mean ELBO of real images, in nats (arXiv:1312.6114)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ganfast.data import Dataset
from ganfast.data.sampler import drawn
from ganfast.metrics.lenet import normalise

ROWS, PART = 10_000, 500  # images at most; at once


@dataclass(frozen=True)
class BoundReport:
    """A lower bound on the mean log-likelihood of an image with pixels in [0, 1]."""

    elbo: float  # nats
    elbo_error: float  # standard error of the mean, nats
    images: int

    def __str__(self):
        return (
            f"ELBO, a lower bound on log p(x)                  {self.elbo:.2f} ± {self.elbo_error:.2f} nats "
            f"({self.images} images)"
        )


@torch.no_grad()
def bound_report(bound: Callable[[Tensor], Tensor], data: Dataset, device="cpu", progress: bool = False) -> BoundReport:
    """``bound``: images [B, C, H, W] in [−1, 1] → lower bounds [B]; at most ROWS of ``data``, drawn by a fixed seed.

    Repeatable: what ``bound`` draws begins at a seed, and the global random state stays as it is.
    """
    rows = drawn(data, ROWS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = tqdm(rows.split(PART), desc="bound", delay=1, leave=False, disable=not progress)
        found = torch.cat([bound(normalise(data.samples[part]).to(device)).double().cpu() for part in parts])
    return BoundReport(float(found.mean()), standard_error(found), len(found))


def standard_error(values: Tensor) -> float:
    """Of the mean of values [N]; 0 of one."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else 0.0
