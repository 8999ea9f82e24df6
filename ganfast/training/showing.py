"""The pictures that a run shows of its samples, whatever its recipe needs to make them."""

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ganfast.data import Dataset, Sampler
from ganfast.data.attributes import switched, titles
from ganfast.recipes import Trained
from ganfast.training import landscape, pictures, sampling
from ganfast.training.answers import given_of

SEEDS = 64  # samples of a grid
POINTS = 2500  # samples of a map
COLUMNS = 8
ROWS = 10  # classes at most
SWITCHES = 24  # attributes that are switched on
TRAVERSAL = torch.linspace(-2, 2, COLUMNS)  # of a code


class Show:
    """``picture()`` of what ``trained`` makes now, always of the same latents; ``reals()`` of the data.

    Without conditions: a grid of 64 seeds. By labels: a row for each class, a column for each seed. By attributes that
    are the recipe's own codes: a row for each, from −2 to 2. By images: input, output and, where the data has it,
    target; by images and attributes: input, and output with each attribute switched on. Autoencoders: a row of real
    samples and one of their reconstructions below. Recipes that work in steps: a row for each step of the first eight
    seeds; recipes of pairs: both of each. Points: real and generated ones, in the plane over level lines and gradients
    of ``networks["D"]`` where that scores points alone; it stays as it is. ``partners``: rows of one number belong
    together in all sources, which is how true answers of unpaired recipes are known.
    """

    def __init__(
        self, trained: Trained, sources: list[Dataset], seed: int, networks: Mapping[str, nn.Module],
        partners: bool = False,
    ):  # fmt: skip
        self.trained, self.sources, self.seed, self.networks = trained, sources, seed, networks
        self.partners = partners

    @functools.cached_property
    def extent(self) -> float:
        """Half the side of the map that shows points."""
        data = self.sources[0]
        return 1.2 * data.samples[:10_000].abs().max().item() if data.kind == "points" else 1.0

    def data(self, source: int, count: int) -> dict[str, Tensor]:
        """The first rows of a source in the order of training, every column."""
        dataset = self.sources[source]
        return Sampler(dataset, min(count, len(dataset)), self.seed).next()

    def real(self, count: int) -> Tensor:
        """The first rows of the recipe's first column."""
        first = next(iter(self.trained.recipe.columns.values()))
        return self.data(first.source, count)[self.sources[first.source].column_of(first)]

    def reals(self) -> np.ndarray:
        count = POINTS if self.sources[0].kind == "points" else SEEDS
        first = next(iter(self.trained.recipe.columns.values()))
        return pictures.picture_of(
            self.data(first.source, count)[self.sources[first.source].column_of(first)], extent=self.extent
        )

    def picture(self) -> np.ndarray:
        kinds = {spec.kind: name for name, spec in self.trained.given.items()}
        if asked := kinds.get("images") or kinds.get("maps"):
            return self.translations(asked)
        if "labels" in kinds or "attributes" in kinds:
            samples = self.conditions(kinds)
        else:
            samples = sampling.sample(self.trained, range(POINTS if self.sources[0].kind == "points" else SEEDS))
            if self.trained.can("reconstruct") and samples.ndim == 4:
                samples = torch.cat([samples, self.reconstructions()])
            if self.trained.can("strip"):
                steps = sampling.strip(self.trained, range(COLUMNS)).transpose(0, 1)
                samples = torch.cat([samples, steps.flatten(0, 1)])
        return self.scatter(samples) if samples.ndim == 2 else pictures.picture_of(samples, COLUMNS)

    def scatter(self, samples: Tensor) -> np.ndarray:
        """Points [N, D] among real ones, and what the discriminator makes of the plane where D = 2."""
        seen = None
        if self.critic is not None and samples.shape[1] == 2:
            seen = landscape.survey(self.critic, self.extent, self.trained.device)
        return landscape.picture(self.real_points, samples.float().numpy(), self.extent, seen)

    @functools.cached_property
    def critic(self) -> nn.Module | None:
        """The discriminator, where it scores points of the plane alone."""
        network = self.networks.get("D")
        return network if network is not None and landscape.judges_points(network, self.trained.device) else None

    @functools.cached_property
    def real_points(self) -> np.ndarray:
        return self.real(POINTS).float().numpy()

    def conditions(self, kinds: dict[str, str]) -> Tensor:
        """[rows · COLUMNS, ...]: a row for each class, then one for each code of the recipe's own."""
        trained, seeds, rows = self.trained, list(range(COLUMNS)), []
        for k in spread(trained.given[kinds["labels"]].classes) if "labels" in kinds else []:
            given = sampling.fill(trained, seeds) | {kinds["labels"]: torch.full((COLUMNS,), k)}
            rows.append(sampling.sample(trained, seeds, None, given))
        codes = trained.given[kinds["attributes"]].shape[0] if "attributes" in kinds else 0
        for code in range(codes):
            given = sampling.fill(trained, [0] * COLUMNS)
            given[kinds["attributes"]][:, code] = TRAVERSAL
            rows.append(sampling.sample(trained, [0] * COLUMNS, None, given))
        return torch.cat(rows)

    def translations(self, name: str) -> np.ndarray:
        """Rows of input, output and, where it is known, the true answer."""
        recipe, batches = self.trained.recipe, {}
        for each, column in recipe.columns.items():
            rows = self.data(column.source, SEEDS // 2)
            batches[each] = rows[self.sources[column.source].column_of(column)]
        kinds = {spec.kind: each for each, spec in self.trained.given.items()}
        if "attributes" in kinds:
            return self.switches(batches, name, kinds["attributes"])
        given = given_of(self.trained, batches, torch.Generator(self.trained.device).manual_seed(self.seed))
        shown = [pictures.of_given(given[name].cpu(), self.trained.given[name]), sampling.decode(self.trained, given)]
        asked = recipe.columns[name].source if name in recipe.columns else 0
        if recipe.answer and (self.partners or recipe.columns[recipe.answer].source == asked):
            shown.append(batches[recipe.answer])
        images = torch.stack(pictures.alike(shown), 1).flatten(0, 1)
        return pictures.picture_of(images, len(shown) * min(COLUMNS // 2, len(images) // len(shown)))

    def switches(self, batches: dict[str, Tensor], name: str, attribute: str) -> np.ndarray:
        """Rows of input and output with each attribute switched on; below, steps from its own to those of another."""
        images, own = batches[name][:COLUMNS].cpu(), batches[attribute][:COLUMNS]
        names = titles(self.trained.given[attribute])
        asked = torch.stack([switched(own, names, k) for k in spread(len(names), SWITCHES)], 1)
        if self.trained.recipe.between:
            to = torch.linspace(0, 1, asked.shape[1])[:, None]
            steps = own[:, None].lerp(own.roll(1, 0)[:, None], to)
            images, asked = images.repeat(2, 1, 1, 1), torch.cat([asked, steps])
        each = asked.shape[1]
        given = {name: images.repeat_interleave(each, 0), attribute: asked.flatten(0, 1)}
        made = sampling.decode(self.trained, given).unflatten(0, (-1, each))
        rows = torch.cat([images[:, None], made], 1)
        return pictures.picture_of(rows.flatten(0, 1), 1 + each)

    def reconstructions(self) -> Tensor:
        x = self.real(COLUMNS)
        with torch.no_grad():
            return torch.cat([x, self.trained.reconstruct(x.to(self.trained.device)).cpu()])


def spread(classes: int, most: int = ROWS) -> list[int]:
    """At most so many classes, evenly spaced."""
    count = min(classes, most)
    return [round(k * (classes - 1) / max(count - 1, 1)) for k in range(count)]
