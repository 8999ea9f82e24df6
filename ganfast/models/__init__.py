"""Generators and discriminators, one file per architecture, and latent vectors from seeds."""

from ganfast.models.latents import latents

__all__ = ["latents"]
