"""From a generator and seeds to samples."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganfast import models

# Latents in every call of a network, empty places filled with zeros: the vendor's kernels, and with them a sample's
# last bits, depend on how many there are and on its place among them, never on its neighbours
BLOCK = 16


def sample(generator: nn.Module, seeds: Sequence[int], truncation: float | None, device) -> Tensor:
    """One sample per seed, by ``generator`` in evaluation mode, on the CPU: the same bits whatever the other seeds."""
    z = models.latents(seeds, generator.latent_dim, truncation)
    rows = places(seeds)
    blocks = z.new_zeros(max(rows, default=-1) + 1, generator.latent_dim)
    blocks[rows] = z
    return decode(generator, blocks, device)[rows]


def places(seeds: Iterable[int]) -> list[int]:
    """A row for each seed: place seed mod BLOCK of the first block that has it free; a range leaves no gaps."""
    used = Counter()
    rows = []
    for seed in seeds:
        place = seed % BLOCK
        rows.append(used[place] * BLOCK + place)
        used[place] += 1
    return rows


@torch.no_grad()
def decode(generator: nn.Module, z: Tensor, device) -> Tensor:
    """The samples of latents [B, latent_dim], a block at a time, on the CPU."""
    parts = z.split(BLOCK)
    padded = [F.pad(part, (0, 0, 0, BLOCK - len(part))).to(device) for part in parts]
    return torch.cat([generator(block)[: len(part)].cpu() for block, part in zip(padded, parts)])


def batches(
    generator: nn.Module, seeds: Iterable[int], truncation: float | None, device, batch: int
) -> Iterator[tuple[list[int], Tensor]]:
    """(seeds, their samples), ``batch`` at a time: memory does not grow with the number of seeds."""
    seeds = iter(seeds)
    while part := list(islice(seeds, batch)):
        yield part, sample(generator, part, truncation, device)


def walk(generator: nn.Module, seeds: Sequence[int], truncation: float | None, frames: int) -> Iterator[Tensor]:
    """From each seed to the next: latents [frames, latent_dim], both ends included."""
    corners = models.latents(seeds, generator.latent_dim, truncation)
    for a, b in pairwise(corners):
        yield slerp(a, b, torch.linspace(0, 1, frames))


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation [T, n] from a [n] to b [n] at t [T] in [0, 1] (Shoemake 1985): keeps latents typical."""
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.lerp(a, b, t[:, None])
    return (torch.sin((1 - t) * angle)[:, None] * a + torch.sin(t * angle)[:, None] * b) / torch.sin(angle)
