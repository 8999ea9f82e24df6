"""From pictures back to codes: what latent a generator would have made them of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from ganfast.errors import InputError
from ganfast.metrics.perceptual import Measure, pixels
from ganfast.recipes import Trained
from ganfast.training import sampling

DRAWN = 32  # latents of which the best is where a picture without an encoder starts
ROWS, FEW_ROWS = 64, 8  # codes at once; where a feature network, which sees large pictures, compares them
RATE = 0.1  # Adam's first learning rate, in typical sizes of a number of the code
PRIOR = 5e-4  # weight of −log p(‖z‖) ≈ (‖z‖ − √n)², which keeps z typical, beside the mean squared error


@dataclass(frozen=True)
class Projection:
    """Codes [N, n] of N pictures, of which classes (int64 [N], or None), and the samples [N, C, H, W] of the codes that
    they began with and of those that were found."""

    codes: Tensor
    classes: Tensor | None
    start: Tensor
    result: Tensor


def project(
    trained: Trained,
    images: Tensor,
    steps: int = 300,
    seed: int = 0,
    distance: Callable[[Tensor], Measure] = pixels,
    classes: Sequence[int] = (),
    progress: bool = False,
) -> Projection:
    """The codes whose samples are nearest to ``images`` [N, C, H, W] in [−1, 1]:

        argmin_z distance(x, G(z)) + PRIOR·(‖z‖ − r)²

    by ``steps`` steps of Adam with a cosine schedule (Zhu et al. 2016, arXiv:1609.03552, section 3.1). It begins at the
    best of DRAWN latents, with r = √n, the length of nearly all z ~ N(0, 1) of n numbers; or where there is an encoder
    at its code, in units in which that is √n long. The best code of all steps counts, so that no result is worse
    than its start.

    Args:
        distance: ``pixels`` or a ``Perceptual``, of targets, then of samples → [N].
        classes: of a recipe that is given labels, those to try; each picture keeps the best.
    """
    check(trained)
    label = next((name for name, spec in trained.given.items() if spec.kind == "labels"), None)
    encodes = trained.can("encode")
    if bool(classes) != bool(label and not encodes):
        raise InputError(f"classes: got {list(classes)}, needs some where a recipe is given labels, and nowhere else.")
    tried = list(classes) or [0]
    parts, each = [], max((ROWS if distance is pixels else FEW_ROWS) // len(tried), 1)
    with tqdm(total=len(images) * steps, unit="step", delay=1, leave=False, disable=not progress) as bar:
        for part in images.split(each):
            targets = part.to(trained.device).repeat_interleave(len(tried), 0)
            given = sampling.fill(trained, tried * len(part))
            given = {name: tensor.to(trained.device) for name, tensor in given.items()}
            start = trained.encode(targets).detach() if encodes else nearest(trained, part, tried, seed, distance)
            code, loss = descend(trained, start, given, distance(targets), steps, partial(bar.update, len(part)))
            best = loss.view(-1, len(tried)).argmin(1)
            rows = best + len(tried) * torch.arange(len(part), device=best.device)
            given = {name: tensor[rows] for name, tensor in given.items()}
            with torch.no_grad():
                made = [sampling.of_codes(trained, codes[rows], given).cpu() for codes in (start, code)]
            parts.append((code[rows].cpu(), torch.tensor(tried)[best.cpu()], *made))
    codes, found, start, result = map(torch.cat, zip(*parts))
    return Projection(codes, found if classes else None, start, result)


def check(trained: Trained) -> None:
    """``InputError`` where the recipe makes no images of codes."""
    kinds = {spec.kind for spec in trained.given.values()}
    shape = trained.specs[next(iter(trained.recipe.columns))].shape
    if not (trained.can("encode") or trained.latent_dim) or not kinds <= {"labels", "attributes"} or len(shape) != 3:
        raise InputError(
            f"recipe {trained.recipe.name} with this data makes no images of latents or codes: there is none to find."
        )


@torch.no_grad()
def nearest(trained: Trained, images: Tensor, classes: list[int], seed: int, distance) -> Tensor:
    """[N · classes, n]: for each picture and class the nearest of DRAWN latents, the same ones for all."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(DRAWN, trained.latent_dim, generator=random).to(trained.device)
    drawn = []
    for k in classes:
        given = {name: tensor.to(trained.device) for name, tensor in sampling.fill(trained, [k] * DRAWN).items()}
        drawn.append(sampling.of_codes(trained, z, given))
    measures = [distance(image.to(trained.device)) for image in images.split(1)]
    errors = [[torch.cat([*map(measure, s.split(FEW_ROWS))]) for s in drawn] for measure in measures]
    return torch.stack([z[error.argmin()] for of_classes in errors for error in of_classes])


def descend(
    trained: Trained, start: Tensor, given: dict, measure: Measure, steps: int, after: Callable
) -> tuple[Tensor, Tensor]:
    """(the best code [B, n] that Adam found from ``start``, its loss [B]); ``after`` is called after each step."""
    root = start.shape[1] ** 0.5
    scale = start.norm(dim=1, keepdim=True).clamp(min=1e-3) / root if trained.can("encode") else 1.0
    code = (start / scale).requires_grad_()  # in units in which a number of it is about 1
    adam = torch.optim.Adam([code], RATE)
    best, lowest = code.detach().clone(), torch.full((len(start),), math.inf, device=start.device)
    for step in range(steps + 1):
        loss = measure(sampling.of_codes(trained, code * scale, given)) + PRIOR * (code.norm(dim=1) - root).square()
        better = loss.detach() < lowest
        lowest = torch.where(better, loss.detach(), lowest)
        best = torch.where(better[:, None], code.detach(), best)
        if step == steps:
            break
        adam.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        adam.zero_grad()
        loss.sum().backward(inputs=[code])
        adam.step()
        after()
    return best * scale, lowest
