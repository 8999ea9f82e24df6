"""What a recipe makes of rows of data, beside what it should make of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from ganfast import models
from ganfast.data import Dataset
from ganfast.data.sampler import decode
from ganfast.metrics.features import Network
from ganfast.metrics.fidelity import MEASURES, FidelityReport, Measure
from ganfast.metrics.perceptual import Perceptual
from ganfast.recipes import Recipe, Trained
from ganfast.training import sampling

PART = 16  # rows at once


def columns_of(recipe: Recipe, sources: Sequence[Dataset], rows: Tensor) -> dict[str, Tensor]:
    """The recipe's columns at ``rows`` of each source, as networks see them."""
    found = {}
    for name, column in recipe.columns.items():
        key = sources[column.source].column_of(column)
        found[name] = decode(key, sources[column.source].columns[key][rows])
    return found


def given_of(
    trained: Trained, columns: Mapping[str, Tensor], random: torch.Generator, first: int = 0
) -> dict[str, Tensor]:
    """What ``sample`` is given for rows of the data, with latents, where it takes some, of seeds from ``first`` on."""
    on_device = {name: values.to(trained.device) for name, values in columns.items()}
    given = trained.recipe.question(on_device, random)
    if trained.latent_dim:
        count = len(next(iter(given.values())))
        given = {"z": models.latents(range(first, first + count), trained.latent_dim).to(trained.device), **given}
    return given


def answers(
    trained: Trained, sources: Sequence[Dataset], count: int, progress: bool = False
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(samples, true ones, trivial ones of their shape, by name), of the sources' first ``count`` rows, on the CPU."""
    random = torch.Generator(trained.device).manual_seed(0)
    made, true, trivial = [], [], {}
    parts = torch.arange(count).split(PART)
    for rows in tqdm(parts, "answers", delay=1, leave=False, disable=not progress):
        columns = columns_of(trained.recipe, sources, rows)
        given = given_of(trained, columns, random, rows[0].item())
        made.append(sampling.decode(trained, given))
        true.append(columns[trained.recipe.answer])
        for name, found in trained.recipe.trivial(given).items():
            if found.shape == made[-1].shape:
                trivial.setdefault(name, []).append(found.cpu())
    return torch.cat(made), torch.cat(true), {name: torch.cat(found) for name, found in trivial.items()}


def distances(trained: Trained, sources: Sequence[Dataset]) -> FidelityReport:
    """What the recipe's own losses say of the sample of the first row, and of each image there as it is."""
    columns = columns_of(trained.recipe, sources, torch.zeros(1, dtype=torch.int64))
    made = sampling.decode(trained, given_of(trained, columns, torch.Generator(trained.device)))
    found = {name: trained.recipe.distances(images, columns) for name, images in {"": made, **columns}.items()}
    return FidelityReport(1, found.pop(""), found)


def measures_of(network: Network | None) -> dict[str, Measure]:
    """What ``fidelity_report`` measures, with a feature network by its distance, too."""
    if network is None:
        return MEASURES
    distance = Perceptual(network)
    return {**MEASURES, f"perceptual-{network.name}": torch.no_grad()(lambda images, true: distance(true)(images))}


def with_attributes_of(
    trained: Trained, data: Dataset, rows: Tensor, others: Tensor, progress: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """(images of ``rows``, what is made of them with the attributes of ``others``, images of these), on the CPU."""
    image, attribute = (
        next(name for name, spec in trained.given.items() if spec.kind == kind) for kind in ("images", "attributes")
    )
    images, true = decode("images", data.columns["images"][rows]), decode("images", data.columns["images"][others])
    wanted = data.columns["attributes"][others]
    made = [
        sampling.decode(trained, {image: x, attribute: y})
        for x, y in tqdm(
            list(zip(images.split(PART), wanted.split(PART))), "answers", delay=1, leave=False, disable=not progress
        )
    ]
    return images, torch.cat(made), true
