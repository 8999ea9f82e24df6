"""Mode coverage on stacked images, by the protocol of PacGAN (Lin et al. 2018, arXiv:1712.04086, section 4.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics.lenet import fitted, normalise, probabilities

SAMPLES = 26_000  # of the protocol
STEPS = 2000  # of the classifier: 98.8 % on MNIST's own test part


@dataclass(frozen=True)
class StackedReport:
    """``modes`` of ``total`` that occur, ``kl`` of the samples' modes from the data's, nats; floors of real images."""

    accuracy: float  # of the classifier, on real images held out from it
    modes: int
    total: int
    kl: float
    floor_modes: int
    floor_kl: float

    def __str__(self):
        return (
            f"classifier's accuracy on held-out images {self.accuracy:.2%}\n"
            f"modes recovered                          {self.modes} of {self.total} (real images: {self.floor_modes})\n"
            f"KL of generated from real modes          {self.kl:.3f} nats (real images: {self.floor_kl:.3f})"
        )


def stacked_report(base: Dataset, fakes: Tensor, steps: int = STEPS, progress: bool = False) -> StackedReport:
    """``fakes`` [N, 3, H, W] in [−1, 1] against three draws from ``base``, the labelled grey images that are stacked.

    A classifier of the K classes of ``base``, trained once and kept in the cache folder, names each channel; that makes
    one of K³ modes. A mode is recovered when one sample falls on it. KL(generated ‖ data) is over the modes, those of
    the data being drawn independently by the shares of the classes. The floor is of as many stacks of the images held
    out from the classifier: what its errors and the number of samples make of perfect ones.
    """
    if fakes.dim() != 4 or tuple(fakes.shape[1:]) != (3, *base.shape[1:]):
        wanted = (3, *base.shape[1:])
        raise InputError(f"the generator makes samples of {tuple(fakes.shape[1:])}, stacked images are {wanted}.")
    fit = fitted(base, steps, len(base), progress=progress, held_out=10)
    shares = torch.bincount(base.labels, minlength=base.num_classes).double() / len(base)
    named = torch.stack([probabilities(fit.network, part.cpu()).argmax(1) for part in fakes.split(1, 1)], 1)
    own = probabilities(fit.network, normalise(base.samples[fit.held_out])).argmax(1)
    drawn = np.random.RandomState(0).randint(len(own), size=(len(fakes), 3))
    modes, kl = covered(named, shares)
    floor_modes, floor_kl = covered(own[torch.from_numpy(drawn)], shares)
    return StackedReport(fit.accuracy, modes, base.num_classes**3, kl, floor_modes, floor_kl)


def covered(classes: Tensor, shares: Tensor) -> tuple[int, float]:
    """(modes that occur, KL from independent draws by ``shares`` [K]) of int64 [N, 3]."""
    k = len(shares)
    data = (shares[:, None, None] * shares[:, None] * shares).flatten()
    counts = torch.bincount(classes @ torch.tensor([k * k, k, 1]), minlength=k**3).double()
    found = counts / counts.sum()
    divergence = torch.special.xlogy(found, found / data.clamp(min=1e-300)).sum()
    return int((counts > 0).sum()), float(divergence)
