"""Directions of a code space along which a class or an attribute of the data changes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from ganfast.data import Dataset
from ganfast.data.sampler import drawn
from ganfast.errors import InputError
from ganfast.files import replacing
from ganfast.metrics.lenet import fitted, probabilities
from ganfast.recipes import Trained
from ganfast.training import sampling, scoring

FILE = "directions.safetensors"
DRAWN = 2000  # latents that are classified, or pictures that are encoded
FEWEST = 10  # of each side
STEPS = tuple(range(-3, 4))  # of a walk, in standard deviations


@dataclass(frozen=True)
class Sides:
    """Two sides that a classifier of ``data`` tells apart: its classes ``frm`` (None: all others) and ``to``."""

    name: str
    data: Dataset
    frm: int | None
    to: int


@dataclass(frozen=True)
class Direction:
    """A direction of code space, and what it does.

    ``vector`` [n] is one standard deviation of the codes long; ``difference`` says how many of these the means of both
    sides are apart; ``base`` [B, n] are codes of the side without; ``shares`` of their walks, at each of STEPS, are on
    the side with, by a classifier whose accuracy on held-out pictures is ``accuracy``.
    """

    name: str
    vector: Tensor
    difference: float
    base: Tensor
    shares: tuple[float, ...]
    accuracy: float


def sides(data: Dataset, frm: str | None = None, to: str | None = None) -> list[Sides]:
    """Each class against all others, each attribute high (above the middle of its range) against low; or the two that
    are named. ``InputError`` where the data has none."""
    names = data.names.get("labels", ()) if len(data.names.get("labels", ())) > 1 else ()
    attributes = data.names.get("attributes", ())
    if data.kind != "images" or not (names or attributes):
        raise InputError(f"{data.name} has images of neither classes nor attributes: give data that has (--data).")
    for flag, word in (("--from", frm), ("--to", to)):
        if word is not None and word not in names and (flag == "--from" or word not in attributes):
            known = ", ".join([*names, *(() if flag == "--from" else attributes)][:20])
            raise InputError(f"{flag} {word}: {data.name} has no class of this name: give one of {known}.")
    if frm is not None and (to not in names or frm == to):
        raise InputError(f"--from {frm}: give the class to go to, another one, beside it (--to).")
    if frm is not None:
        return [Sides(f"{frm} → {to}", data, names.index(frm), names.index(to))]
    found = [Sides(name, data, None, k) for k, name in enumerate(names) if to in (None, name)]
    for k, name in enumerate(attributes):
        values = data.columns["attributes"][:, k]
        high = (values > (values.min() + values.max()) / 2).long()
        if to in (None, name) and FEWEST <= int(high.sum()) <= len(high) - FEWEST:
            pair = Dataset(data.name, images=data.samples, labels=high, names={"labels": (f"no {name}", name)})
            found.append(Sides(name, pair, 0, 1))
    if not found:
        raise InputError(f"{data.name} has too few pictures on one side of {to or 'its attributes'}: give others.")
    return found


def directions(trained: Trained, wanted: list[Sides], rows: int = 4, progress: bool = False) -> Iterator[Direction]:
    """For each of ``wanted`` the mean code with less the mean code without (Radford et al. 2016, arXiv:1511.06434,
    section 6.3.2; by labels as Larsen et al. 2016, arXiv:1512.09300, section 4.1).

    Codes of the data's pictures where the recipe encodes; else latents, by what a classifier of the data sees in their
    samples. Where one side has fewer than FEWEST of them, there is no direction. ``rows`` codes are walked from and
    shown; ``shares`` are of up to 64.
    """
    if not trained.can("encode") and (trained.given or not trained.latent_dim):
        raise InputError(
            f"recipe {trained.recipe.name} makes samples of more than latents, or of none: directions are of recipes "
            "that encode, or that draw latents alone."
        )
    encodes = trained.can("encode")
    if encodes:
        pictures = wanted[0].data
        rows_of_data = drawn(pictures, DRAWN)
        codes = sampling.of_data(trained, trained.encode, pictures, rows_of_data, "codes", progress)
    else:
        samples, codes = scoring.draw(trained, DRAWN, progress), sampling.codes_of(trained, range(DRAWN))
    for side in wanted:
        fit = fitted(side.data, progress=progress)
        seen = side.data.labels[rows_of_data] if encodes else probabilities(fit.network, samples).argmax(1)
        there, away = seen == side.to, seen != side.to if side.frm is None else seen == side.frm
        if min(int(there.sum()), int(away.sum())) < FEWEST:
            continue
        change = codes[there].mean(0) - codes[away].mean(0)
        unit = change / change.norm()
        sigma = (codes @ unit).std()
        base, vector = codes[away][:64], unit * sigma
        walks = [probabilities(fit.network, sampling.decode_codes(trained, base + t * vector)) for t in STEPS]
        shares = tuple(float((walk.argmax(1) == side.to).float().mean()) for walk in walks)
        yield Direction(side.name, vector, float(change.norm() / sigma), base[:rows], shares, fit.accuracy)


def walk(trained: Trained, direction: Tensor, base: Tensor) -> Tensor:
    """[rows · STEPS, C, H, W]: from each code of ``base`` [rows, n] along ``direction`` [n], a row each."""
    t = torch.tensor(STEPS, dtype=torch.float32)
    return sampling.decode_codes(trained, (base[:, None] + t[None, :, None] * direction).flatten(0, 1))


def save(found: list[Direction], file: Path) -> None:
    """Each direction by its name, fp32 [n]; in the metadata what was measured of it, as JSON."""
    measured = {d.name: {"difference": d.difference, "shares": d.shares, "accuracy": d.accuracy} for d in found}
    with replacing(file) as partial:
        tensors = {d.name: d.vector.contiguous() for d in found}
        partial.write_bytes(serialise(tensors, {"steps": json.dumps(STEPS), "measured": json.dumps(measured)}))


def load(file: Path, size: int) -> dict[str, Tensor]:
    """The directions of ``file`` by name, fp32 [size]; ``InputError`` where it is damaged or of other codes."""
    try:
        with safe_open(file, framework="pt") as archive:
            found = {name: archive.get_tensor(name) for name in json.loads((archive.metadata() or {})["measured"])}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file.name} cannot be read ({error}): make it again by ganfast directions.") from None
    if any(vector.shape != (size,) for vector in found.values()):
        raise InputError(f"{file.name} is of codes of another size than {size}: make it again by ganfast directions.")
    return found
