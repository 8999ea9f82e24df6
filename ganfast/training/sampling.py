"""From a trained recipe and seeds to samples."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ganfast import models
from ganfast.data import Dataset, sampler
from ganfast.recipes import Trained
from ganfast.recipes.trained import DTYPES

# Rows in every call of a network, empty places filled with zeros: the vendor's kernels, and with them a sample's
# last bits, depend on how many there are and on its place among them, never on its neighbours
BLOCK = 16
PART = 256  # rows of data, or samples, at once: a multiple of BLOCK


def sample(
    trained: Trained,
    seeds: Sequence[int],
    truncation: float | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """One sample per seed, on the CPU: the same bits whatever the other seeds are.

    ``given`` has a row for each seed of what the recipe needs besides latents.
    """
    return of_seeds(trained, trained, seeds, truncation, given)


def strip(
    trained: Trained,
    seeds: Sequence[int],
    truncation: float | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """[N, T, C, H, W]: ``sample`` step by step, of recipes that work in steps."""
    return of_seeds(trained, lambda **tensors: trained.strip(**tensors).transpose(0, 1), seeds, truncation, given)


def of_seeds(trained: Trained, make: Callable[..., Tensor], seeds, truncation, given) -> Tensor:
    """What ``make`` makes of the latents of ``seeds`` and of what is given."""
    tensors = dict(given or {})
    if trained.latent_dim:
        tensors = {"z": models.latents(seeds, trained.latent_dim, truncation), **tensors}
    rows = places(seeds)
    blocks = {}
    for name, tensor in tensors.items():
        blocks[name] = tensor.new_zeros(max(rows, default=-1) + 1, *tensor.shape[1:])
        blocks[name][rows] = tensor
    return decode(trained, blocks, make)[rows]


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
def decode(trained: Trained, tensors: Mapping[str, Tensor], make: Callable[..., Tensor] | None = None) -> Tensor:
    """The samples of ``tensors`` by the names of the arguments, a block of rows at a time, on the CPU.

    Others, which a recipe's question has for its trivial answers, are left out. Of images that are given, which are
    large and lie where nobody counts seeds, one at a time.
    """
    tensors = {name: tensors[name] for name in trained.arguments}
    count = len(next(iter(tensors.values())))
    block = 1 if any(spec.kind in ("images", "maps") for spec in trained.given.values()) else BLOCK
    parts = []
    for start in range(0, count, block):
        rows = {name: tensor[start : start + block] for name, tensor in tensors.items()}
        have = min(block, count - start)
        padded = {name: pad(part, block - have).to(trained.device) for name, part in rows.items()}
        parts.append((make or trained)(**padded)[:have].cpu())
    return torch.cat(parts)


def of_codes(trained: Trained, codes: Tensor, given: Mapping[str, Tensor] | None = None) -> Tensor:
    """Samples of codes [B, n], differentiable: of what an encoder finds where there is one, else of latents z."""
    if trained.can("encode") or not trained.given:
        return trained.decode(codes)
    return trained.sample(z=codes, **(given or {}))


@torch.no_grad()
def decode_codes(trained: Trained, codes: Tensor, given: Mapping[str, Tensor] | None = None) -> Tensor:
    """``of_codes`` of any number of codes, a block of rows at a time, on the CPU."""
    parts = []
    for start in range(0, len(codes), BLOCK):
        rows = slice(start, start + BLOCK)
        conditions = {name: tensor[rows].to(trained.device) for name, tensor in (given or {}).items()}
        parts.append(of_codes(trained, codes[rows].to(trained.device), conditions).cpu())
    return torch.cat(parts)


@torch.no_grad()
def codes_of(trained: Trained, seeds: Sequence[int]) -> Tensor:
    """Codes [len(seeds), n] of seeds: their latents, or with an encoder what it finds in their samples."""
    if not trained.can("encode"):
        return models.latents(seeds, trained.latent_dim)
    samples = sample(trained, seeds, None, fill(trained, seeds))
    return torch.cat([trained.encode(part.to(trained.device)).cpu() for part in samples.split(BLOCK)])


@torch.no_grad()
def of_data(
    trained: Trained, make: Callable[[Tensor], Tensor], data: Dataset, rows: Tensor, said: str, progress: bool = False
) -> Tensor:  # fmt: skip
    """What ``make`` makes of ``rows`` of the first column of ``data``, as networks see it, on the CPU."""
    column = next(iter(data.columns))
    parts = tqdm(rows.split(PART), said, delay=1, leave=False, disable=not progress)
    return torch.cat([make(sampler.decode(column, data.samples[part]).to(trained.device)).cpu() for part in parts])


def pad(rows: Tensor, missing: int) -> Tensor:
    """``rows`` and as many of zeros as are ``missing``."""
    return F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) if missing else rows


def fill(trained: Trained, seeds: Sequence[int]) -> dict[str, Tensor]:
    """What a recipe needs besides latents where nobody says what: each class in turn, attributes of 0."""
    found = {}
    for name, spec in trained.given.items():
        if spec.kind == "labels":
            found[name] = torch.tensor([seed % max(spec.classes, 1) for seed in seeds])
        else:
            found[name] = torch.zeros(len(seeds), *spec.shape, dtype=DTYPES.get(spec.kind, torch.float32))
    return found


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation [T, n] from a [n] to b [n] at t [T] in [0, 1] (Shoemake 1985): keeps latents typical."""
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.lerp(a, b, t[:, None])
    return (torch.sin((1 - t) * angle)[:, None] * a + torch.sin(t * angle)[:, None] * b) / torch.sin(angle)
