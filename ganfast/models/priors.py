"""Priors as functions of z ~ N(0, 1): the uniform one, and those of Makhzani et al. 2015 for an autoencoder's codes."""

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor

DISTANCE, LONG, ACROSS = 2.8, 1.0, 0.2  # of a petal: its middle from the origin, standard deviations along and across
REACH, TURNS, THICKNESS = 3.0, 2, 0.1  # of the roll: radius of its end, turns, standard deviation across


def uniform(z: Tensor) -> Tensor:
    """z [B, n] → U(−1, 1), number by number."""
    return torch.erf(z / 2**0.5)


def gaussian(z: Tensor, modes: int = 1, mode: Tensor | None = None) -> Tensor:
    """z itself [B, n]."""
    return z


def mixture(z: Tensor, modes: int = 10, mode: Tensor | None = None) -> Tensor:
    """z [B, 2] → codes [B, 2] of ``modes`` equally likely Gaussians, petals round the origin.

    ``mode`` int64 [B] says which. Without, that is the sector of z's angle φ, of ``modes`` equal ones; the radius and
    the angle modes·φ mod 2π then are again those of N(0, 1), and small z still are the middles of petals.
    """
    if mode is None:
        angle = torch.atan2(z[:, 1], z[:, 0]) / (2 * pi) % 1 * modes  # [0, modes]
        mode = angle.floor().clamp(max=modes - 1)
        within, radius = (angle - mode) * 2 * pi, z.norm(dim=1)
        z = torch.stack([radius * within.cos(), radius * within.sin()], 1)
    along, across, turn = DISTANCE + LONG * z[:, 0], ACROSS * z[:, 1], mode * (2 * pi / modes)
    return torch.stack([along * turn.cos() - across * turn.sin(), along * turn.sin() + across * turn.cos()], 1)


def swiss_roll(z: Tensor, modes: int = 10, mode: Tensor | None = None) -> Tensor:
    """z [B, 2] → codes [B, 2] on a spiral: z₁ is the place along it, uniform in its length, z₂ that across.

    ``mode`` int64 [B] says which of ``modes`` equally long pieces, counted from the middle.
    """
    place = (1 + uniform(z[:, 0])) / 2
    if mode is not None:
        place = (mode + place) / modes
    angle = 2 * pi * TURNS * place.sqrt()  # the length of r = aφ grows with φ², nearly
    radius = REACH * place.sqrt() + THICKNESS * z[:, 1]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


PRIORS: dict[str, Callable[..., Tensor]] = {"gaussian": gaussian, "mixture": mixture, "swiss-roll": swiss_roll}
