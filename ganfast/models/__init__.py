"""Generators and discriminators, one file per architecture, and how a generator is saved and loaded."""

from ganfast.models.io import GENERATORS, describe, load, save
from ganfast.models.latents import latents

__all__ = ["GENERATORS", "describe", "latents", "load", "save"]
