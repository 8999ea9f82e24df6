"""Points of the plane as a picture: real ones, generated ones, and how the discriminator scores the places between."""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganfast.nn.mixing import mixes_samples
from ganfast.training.pictures import counts_of

SIDE = 400  # pixels
PLACES, ARROWS, LEVELS = 64, 16, 12  # scores and arrows along a side; steps between level lines
LOW, HIGH, LINE, ARROW = (255, 255, 255), (205, 222, 243), (110, 140, 185), (60, 110, 170)
REAL, FAKE = (120, 120, 120), (225, 75, 30)


@dataclass(frozen=True)
class Landscape:
    """What a discriminator makes of [−extent, extent]²: rows from the top, where y is extent, columns from the left."""

    scores: np.ndarray
    """[PLACES, PLACES], edges included"""
    gradients: np.ndarray
    """[ARROWS, ARROWS, 2]: ∂score/∂(x, y) in the middle of each cell"""


@contextlib.contextmanager
def undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """``network`` in evaluation mode; afterwards every module's mode and the random states are as they were."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            network.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def judges_points(network: nn.Module, device: torch.device) -> bool:
    """Whether ``network`` gives points [N, 2] alone a score each, whichever the others are: it is tried on three.

    Not so one that is given labels, packed samples or code, nor one with minibatch discrimination.
    """
    with undisturbed(network, device), torch.no_grad():
        needed = [p for p in inspect.signature(network.forward).parameters.values() if p.default is p.empty]
        if mixes_samples(network) or len(needed) != 1:
            return False
        try:
            scores = network(torch.zeros(3, 2, device=device))
        except (RuntimeError, ValueError, TypeError):  # what torch's layers raise for a width that is not theirs
            return False
    return torch.is_tensor(scores) and scores.numel() == 3 and len(scores) == 3


def survey(network: nn.Module, extent: float, device: torch.device) -> Landscape:
    """Scores and gradients of a network that :func:`judges_points`; changes nothing of it."""
    with undisturbed(network, device):
        with torch.no_grad():
            scores = network(mesh(torch.linspace(-extent, extent, PLACES), device))
        cells = (torch.arange(ARROWS) + 0.5) / ARROWS * 2 - 1
        points = mesh(cells * extent, device).requires_grad_()
        with torch.enable_grad():
            (gradients,) = torch.autograd.grad(network(points).sum(), points)
    return Landscape(
        scores.reshape(PLACES, PLACES).float().cpu().numpy(), gradients.reshape(ARROWS, ARROWS, 2).cpu().numpy()
    )


def mesh(along: Tensor, device: torch.device) -> Tensor:
    """[n] rising → points [n², 2] row by row, from the top left."""
    y, x = torch.meshgrid(along.flip(0), along, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1).to(device)


def picture(real: np.ndarray, fake: np.ndarray, extent: float, landscape: Landscape | None) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3] of the first two coordinates: ``real`` [N, D] in grey, ``fake`` [M, D] in orange.

    With a landscape level lines at equal steps between the lowest and the highest score, shaded upwards, and arrows
    along the gradient, the way in which the discriminator pushes samples; the steepest tenth have full length.
    """
    canvas = np.full((SIDE, SIDE, 3), LOW, np.float32)
    if landscape and np.isfinite(landscape.scores).all() and np.ptp(landscape.scores) > 0:
        heights = smooth(landscape.scores)
        levels = (heights * LEVELS).astype(np.int8).clip(0, LEVELS - 1)
        blend(canvas, half(levels) / (LEVELS - 1), HIGH)
        blend(canvas, half(borders(levels)), LINE)
        blend(canvas, arrows(landscape.gradients), ARROW)
    blend(canvas, dots(real, extent, 3, 0.3), REAL)
    blend(canvas, dots(fake, extent, 1, 0.5), FAKE)
    return canvas.round().astype(np.uint8)


def blend(canvas: np.ndarray, share: np.ndarray, colour: tuple[int, int, int]) -> None:
    """In place: ``share`` [H, W] in [0, 1] of each pixel [H, W, 3] becomes ``colour``."""
    canvas += share[..., None] * (np.array(colour, np.float32) - canvas)


def smooth(scores: np.ndarray) -> np.ndarray:
    """[n, n] → [2·SIDE, 2·SIDE] from 0, the lowest, to 1."""
    size = (2 * SIDE, 2 * SIDE)
    wide = F.interpolate(torch.from_numpy(scores).double()[None, None], size, mode="bicubic", align_corners=True)[0, 0]
    low, high = scores.min(), scores.max()
    return ((wide.numpy() - low) / (float(high) - low)).clip(0, 1).astype(np.float32)


def borders(levels: np.ndarray) -> np.ndarray:
    """[H, W] → 1 where a pixel differs from the one to its right or below, else 0."""
    edges = np.zeros(levels.shape, np.float32)
    edges[:, :-1] = levels[:, :-1] != levels[:, 1:]
    edges[:-1] = np.maximum(edges[:-1], levels[:-1] != levels[1:])
    return edges


def half(pixels: np.ndarray) -> np.ndarray:
    """[2H, 2W] → [H, W], means of four."""
    return pixels.reshape(SIDE, 2, SIDE, 2).mean((1, 3))


def arrows(gradients: np.ndarray) -> np.ndarray:
    """Share of each pixel [SIDE, SIDE] that arrows cover, one in each cell."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (2 * SIDE, 2 * SIDE))
    draw = ImageDraw.Draw(mask)
    cell = 2 * SIDE / ARROWS
    lengths = np.linalg.norm(gradients, axis=-1)
    longest = np.quantile(lengths, 0.9)
    if not np.isfinite(longest) or longest == 0:
        return np.zeros((SIDE, SIDE), np.float32)
    for row, column in np.ndindex(lengths.shape):
        length = lengths[row, column]
        if not 0 < length < np.inf:
            continue
        across, up = gradients[row, column] / length
        along, side = np.array([across, -up]), np.array([up, across])  # pixels count downwards
        middle = cell * np.array([column + 0.5, row + 0.5])
        reach = along * cell * 0.42 * min(length / longest, 1)
        tip, head = middle + reach, min(8, np.linalg.norm(reach))
        barbs = [tip - head * along + turn * head / 2 * side for turn in (-1, 1)]
        draw.line([*(middle - reach), *tip], fill=255, width=2)
        draw.polygon([tuple(corner) for corner in (tip, *barbs)], 255)
    return half(np.asarray(mask, np.float32) / 255)


def dots(points: np.ndarray, extent: float, radius: int, opacity: float) -> np.ndarray:
    """Share of each pixel [SIDE, SIDE] that discs round points [N, D] cover; one lets through some of what is below."""
    counts = torch.from_numpy(counts_of(points, extent, SIDE)).float()
    offsets = torch.arange(-radius, radius + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2 + 1).float()  # a square of 3×3 for radius 1
    near = F.conv2d(counts[None, None], disc[None, None], padding=radius)[0, 0].numpy()
    return 1 - (1 - opacity) ** near
