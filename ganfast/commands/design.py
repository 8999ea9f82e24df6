"""``ganfast design``: pictures that are made to please a user, beside those of the data that please most."""

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ganfast.commands import network
from ganfast.commands.choices import parse_classes, parse_seeds
from ganfast.commands.evaluate import Evaluate
from ganfast.data import Dataset
from ganfast.data.sampler import decode
from ganfast.data.users import PREFIX, tastes
from ganfast.errors import InputError
from ganfast.metrics.design import DesignReport, Means, averaged, held_out_auc
from ganfast.recipes import Trained
from ganfast.training import pictures, run_directory
from ganfast.training.designing import QUALITY, Designs, design, preferences, realism_of

FILE = "design.png"


@dataclass(kw_only=True)
class Design:
    """Optimise latents for the preference of users, and compare with the data (Kang et al. 2017)."""

    network: Path
    """a run directory of a recipe that knows users, such as dvbpr"""
    users: str | None = None
    """which users, as 3 or 0-7,12; by default the first eight"""
    classes: str | None = None
    """only these classes, by number or name; by default all"""
    top: int = 3
    """how many samples of the data and of the generator are shown and averaged"""
    starts: int = 60
    """latents to begin from, of each class in turn"""
    steps: int = 100
    """of gradient ascent"""
    quality: float = QUALITY
    """η, the weight of realism (how real the discriminator finds a sample) beside preference"""
    data: str | None = None
    """by default the data that the run was trained on"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def run(self) -> None:
        for name, least in (("top", 1), ("starts", self.top), ("steps", 0), ("quality", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} must be at least {least}, got {getattr(self, name)}.")
        trained = network.load(self.network, self.device)
        if not (trained.can("prefer") and trained.can("realism")):
            raise InputError(f"recipe {trained.recipe.name} knows no users: give a run of dvbpr (--network).")
        if run_directory.of(self.network) is None:
            raise InputError(f"--network {self.network} is a generator without its run: give a run directory.")
        reader = Evaluate(network=self.network).as_trained()
        reader = replace(reader, data=self.data or reader.data)
        data = reader.open(trained.specs["x"].shape)
        self.check_data(trained, data)
        users, rows, labels = self.chosen_users(trained), *self.chosen_rows(data)
        scores = preferences(trained, decode("images", data.samples))
        made = [
            design(trained, k, {"y": labels}, self.quality, self.steps)
            for k in tqdm(users, desc="designs", unit="user", delay=1, leave=False)
        ]
        best = [rows[scores[rows, k].topk(self.top).indices] for k in users]
        report = self.report(trained, data, reader.data.startswith(PREFIX), users, rows, scores, best, made)
        reader.keep("design", report, trained, self.starts)
        file = run_directory.of(self.network) / FILE
        pictures.write_png(file, pictures.picture_of(self.beside(data, best, made), 2 * self.top + 1))
        print(f"a row for each user, the best {self.top} of the data and the best {self.top} designs: {file}")

    def beside(self, data: Dataset, best: list[Tensor], made: list[tuple[Designs, Designs]]) -> Tensor:
        """Samples of the data, an empty cell, designs: row by row."""
        cells = []
        for rows, (_, designs) in zip(best, made):
            real = decode("images", data.samples[rows])
            cells += [real, torch.zeros_like(real[:1]), designs.samples[designs.best(self.top, self.quality)]]
        return torch.cat(cells)

    def report(
        self, trained: Trained, data: Dataset, simulated: bool, users: list[int], rows: Tensor, scores: Tensor,
        best: list[Tensor], made: list[tuple[Designs, Designs]],
    ) -> DesignReport:  # fmt: skip
        """Of ``users``, for whom the rows ``best`` of the data are; the AUC is of all users."""
        u, preference, taste, realism = data.columns["attributes"], [], [], []
        logits = tastes(data, u.shape[1]) if simulated else None
        known = logits(data.samples, data.labels) if simulated else None
        for k, real, (before, after) in zip(users, best, made):
            top = after.best(self.top, self.quality)
            preference.append((scores[rows, k], scores[real, k], before.preference, after.preference[top]))
            if simulated:
                drawn, designed = (
                    logits(torch.from_numpy(pictures.to_uint8(each.samples)), each.given["y"])[:, k]
                    for each in (before, after)
                )
                taste.append((known[rows, k], known[real, k], drawn, designed[top]))
            of_data = realism_of(trained, decode("images", data.samples[real]), {"y": data.labels[real]})
            realism.append((of_data, before.realism, after.realism[top]))
        means = [Means(*averaged(each)) if each else None for each in (preference, taste)]
        return DesignReport(len(made), self.top, held_out_auc(scores, u), *means, *averaged(realism))

    def check_data(self, trained: Trained, data: Dataset) -> None:
        """``InputError`` where the data is not of the run's classes and users."""
        for column, name in (("labels", "y"), ("attributes", "u")):
            if column not in data.columns or data.spec(column) != trained.specs[name]:
                raise InputError(f"{data.name} has not the {column} of the run: give what it was trained on (--data).")

    def chosen_users(self, trained: Trained) -> list[int]:
        known = trained.specs["u"].shape[0]
        chosen = [*chain(*parse_seeds(self.users))] if self.users else [*range(min(known, 8))]
        if max(chosen) >= known:
            raise InputError(f"--users {self.users}: the run knows {known} users, 0 to {known - 1}.")
        return chosen

    def chosen_rows(self, data: Dataset) -> tuple[Tensor, Tensor]:
        """(rows of the data of the classes, int64 [starts]: these classes in turn)."""
        names = data.names["labels"]
        classes = parse_classes(self.classes, names) if self.classes else [*range(len(names))]
        rows = torch.isin(data.labels, torch.tensor(classes)).nonzero().flatten()
        if len(rows) < self.top:
            raise InputError(f"--top {self.top}: {data.name} has {len(rows)} pictures of these classes: give fewer.")
        return rows, torch.tensor([classes[k % len(classes)] for k in range(self.starts)])
