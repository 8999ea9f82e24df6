"""What the two networks of a GAN minimise."""

from ganfast.objectives.adversarial import (
    LOSSES,
    discriminator_bce,
    generator_minimax,
    generator_non_saturating,
    least_squares,
    relativistic_pairing,
    wasserstein,
)

__all__ = [
    "LOSSES",
    "discriminator_bce",
    "generator_minimax",
    "generator_non_saturating",
    "least_squares",
    "relativistic_pairing",
    "wasserstein",
]
