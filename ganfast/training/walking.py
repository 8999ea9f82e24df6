"""A few walks through a recipe's latents, codes and directions, to look at."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ganfast import models
from ganfast.recipes import Trained
from ganfast.training import directions, sampling

FRAMES = 9  # of a walk between latents, and along a continuous code
ROWS = 6  # walks of one kind at most
Walks = tuple[str, list[str], Tensor]  # title, what each row is, [rows · frames, C, H, W]
SPAN = 2.0  # a continuous code goes from −2 to 2, as in figure 2 of Chen et al. 2016


def walks(trained: Trained, run: Path) -> Iterator[Walks]:
    """Each kind of walk that the recipe allows: from latent to latent on great circles (in several classes the same
    way), along each continuous code that sampling is given, and along the directions that ``ganfast directions`` left
    in ``run`` (``InputError`` where their file is damaged). None where no images are drawn from latents."""
    kinds = {spec.kind: name for name, spec in trained.given.items()}
    if not trained.latent_dim or not kinds.keys() <= {"labels", "attributes"}:
        return
    first = between(trained, kinds)
    if first[2].ndim != 4:
        return
    yield first
    if "attributes" in kinds and trained.given[kinds["attributes"]].shape[0]:
        yield along_codes(trained, kinds["attributes"])
    if (run / directions.FILE).is_file():
        yield along_directions(trained, run)


def between(trained: Trained, kinds: dict[str, str]) -> Walks:
    label = kinds.get("labels")
    names = trained.given[label].names[:ROWS] if label else ()
    legs = [(0, 1)] * len(names) or [(2 * k, 2 * k + 1) for k in range(4)]
    z = models.latents(range(8), trained.latent_dim)
    t = torch.linspace(0, 1, FRAMES)
    latents = torch.cat([sampling.slerp(z[a], z[b], t) for a, b in legs])
    given = sampling.fill(trained, [k if label else 0 for k in range(len(legs)) for _ in t])
    said = [f"class {name}" for name in names] or [f"seed {a} to seed {b}" for a, b in legs]
    title = "From seed 0 to seed 1 in each class" if label else "From seed to seed"
    return title, said, sampling.decode(trained, {"z": latents, **given})


def along_codes(trained: Trained, name: str) -> Walks:
    """A row for each code, the rest as seed 0 has it."""
    count = min(trained.given[name].shape[0], ROWS)
    given = sampling.fill(trained, [0] * count * FRAMES)
    for k in range(count):
        given[name][k * FRAMES : (k + 1) * FRAMES, k] = torch.linspace(-SPAN, SPAN, FRAMES)
    z = models.latents([0], trained.latent_dim).expand(count * FRAMES, -1)
    names = trained.given[name].names or tuple(map(str, range(count)))
    title = f"Along each continuous code, −{SPAN:g} to {SPAN:g}"
    return title, [f"code {each}" for each in names[:count]], sampling.decode(trained, {"z": z, **given})


def along_directions(trained: Trained, run: Path) -> Walks:
    """A row for each direction, from the code of seed 0 in the middle; ``InputError`` where the file is damaged."""
    base = sampling.codes_of(trained, [0])
    found = [*directions.load(run / directions.FILE, base.shape[1]).items()][:ROWS]
    drawn = torch.cat([directions.walk(trained, vector, base) for _, vector in found])
    return "Along directions of the data's classes, −3σ to 3σ", [name for name, _ in found], drawn
