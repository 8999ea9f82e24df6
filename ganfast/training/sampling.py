"""From a generator and seeds to samples, and from samples to files."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from ganfast import models
from ganfast.errors import InputError
from ganfast.training import pictures

FRAMES = 16  # from one seed to the next


def sample(generator: nn.Module, seeds: Sequence[int], truncation: float | None, device) -> Tensor:
    """One sample per seed, by ``generator`` in evaluation mode, on the CPU."""
    return decode(generator, models.latents(seeds, generator.latent_dim, truncation), device)


@torch.no_grad()
def decode(generator: nn.Module, z: Tensor, device) -> Tensor:
    """The samples of latents [B, latent_dim], made 256 at a time, on the CPU."""
    return torch.cat([generator(part.to(device)).cpu() for part in z.split(256)])


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation [T, n] from a [n] to b [n] at t [T] in [0, 1] (Shoemake 1985): keeps latents typical."""
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.lerp(a, b, t[:, None])
    return (torch.sin((1 - t) * angle)[:, None] * a + torch.sin(t * angle)[:, None] * b) / torch.sin(angle)


def show(generator, seeds: Sequence[int], truncation: float | None, device) -> str:
    """The samples as text."""
    samples = sample(generator, seeds, truncation, device)
    if samples.ndim != 4:
        raise InputError("--show draws images, and this generator makes points: leave it out.")
    return pictures.as_text(pictures.to_uint8(samples))


def write_singles(generator, seeds: Sequence[int], truncation: float | None, outdir: Path, device) -> str:
    """seed000000.png and so on, and grid.png of them all."""
    samples = sample(generator, seeds, truncation, device)
    for seed, picture in zip(seeds, pictures.to_uint8(samples)):
        pictures.write_png(outdir / f"seed{seed:06d}.png", picture)
    pictures.write_png(outdir / "grid.png", pictures.picture_of(samples))
    return f"{len(samples)} pictures and grid.png"


def write_grid(generator, seeds: Sequence[int], truncation: float | None, outdir: Path, device, columns: int) -> str:
    """grid.png with ``columns`` samples in a row."""
    pictures.write_png(outdir / "grid.png", pictures.picture_of(sample(generator, seeds, truncation, device), columns))
    return "grid.png"


def write_points(generator, seeds: Sequence[int], truncation: float | None, outdir: Path, device) -> str:
    """points.npy [N, D], and points.png, a map of the first two coordinates."""
    import numpy as np

    points = sample(generator, seeds, truncation, device)
    np.save(outdir / "points.npy", points.numpy())
    extent = 1.2 * points.abs().max().item()
    pictures.write_png(outdir / "points.png", pictures.picture_of(points, extent=extent))
    return "points.npy and points.png"


def write_interpolation(generator, seeds: Sequence[int], truncation: float | None, outdir: Path, device) -> str:
    """interpolation.png, a row from each seed to the next, and interpolation.gif."""
    from PIL import Image

    if len(seeds) < 2:
        raise InputError("--interpolate needs two seeds or more, as in 3,7,19.")
    corners = models.latents(seeds, generator.latent_dim, truncation)
    steps = torch.linspace(0, 1, FRAMES)
    walk = torch.cat([slerp(a, b, steps) for a, b in pairwise(corners)])
    samples = decode(generator, walk, device)
    if samples.ndim != 4:
        raise InputError("--interpolate shows images, and this generator makes points: leave it out.")
    pictures.write_png(outdir / "interpolation.png", pictures.picture_of(samples, FRAMES))
    first, *others = [
        Image.fromarray(frame.squeeze(2) if frame.shape[2] == 1 else frame) for frame in pictures.to_uint8(samples)
    ]
    first.save(outdir / "interpolation.gif", save_all=True, append_images=others, duration=60, loop=0)
    return "interpolation.png and interpolation.gif"
