"""What the two networks of a GAN minimise."""

from ganfast.objectives.adversarial import LOSSES, discriminator_bce, generator_minimax, generator_non_saturating

__all__ = ["LOSSES", "discriminator_bce", "generator_minimax", "generator_non_saturating"]
