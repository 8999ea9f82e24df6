"""Improved Techniques for Training GANs (Salimans et al. 2016, arXiv:1606.03498): all of section 3 at once."""

from dataclasses import dataclass

from ganfast.recipes.original import OriginalGAN
from ganfast.recipes.remedies import Remedies


@dataclass(frozen=True, kw_only=True)
class ImprovedGAN(OriginalGAN):
    """Feature matching, minibatch statistics, smoothing, historical averaging, virtual BN (Salimans et al. 2016)."""

    name = "improved"

    real_target: float = 0.9
    """the discriminator's target α for real samples; below 1 it is one-sided label smoothing"""
    remedies: Remedies = Remedies(
        feature_matching=True, minibatch="discrimination", historical_averaging=1e-4, virtual_batch_norm=64
    )
