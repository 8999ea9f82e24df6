"""Mode coverage on mixtures of Gaussians, by the protocol of PacGAN (Lin et al. 2018, arXiv:1712.04086)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModeReport:
    """``modes`` of ``total`` recovered, ``high_quality`` share of samples in [0, 1], ``reverse_kl`` in nats."""

    modes: int
    total: int
    high_quality: float
    reverse_kl: float

    def __str__(self):
        return (
            f"modes recovered      {self.modes} of {self.total}\n"
            f"high-quality samples {self.high_quality:.1%}\n"
            f"reverse KL           {self.reverse_kl:.3f} nats"
        )


def mode_report(samples: Tensor, centres: Tensor, std: float) -> ModeReport:
    """``samples`` [N, D] against equally likely modes at ``centres`` [K, D] with standard deviation ``std``.

    A sample is of high quality within 3 std of its nearest centre; a mode is recovered when one such sample falls on
    it; reverse KL is KL(shares of the nearest centres ‖ uniform) over the high-quality samples, infinite without any.
    """
    distance, nearest = torch.cdist(samples.double(), centres.double()).min(dim=1)
    good = nearest[distance <= 3 * std]
    counts = torch.bincount(good, minlength=len(centres)).double()
    shares = counts / counts.sum()
    divergence = torch.special.xlogy(shares, shares * len(centres)).sum() if len(good) else torch.tensor(torch.inf)
    return ModeReport(int((counts > 0).sum()), len(centres), len(good) / len(samples), float(divergence))
