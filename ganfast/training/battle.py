"""The generative adversarial metric between two runs: their last discriminators, their averaged generators."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ganfast.data import Dataset
from ganfast.data.sampler import decode
from ganfast.errors import InputError
from ganfast.metrics.battle import BattleReport, battle_report
from ganfast.recipes import load
from ganfast.training import checkpoint, run_directory
from ganfast.training.scoring import draw


BATCH = 64  # the default of the recipes


class Fighter:
    """A run with its last checkpoint: samples of the averaged generator there, and the discriminator's errors.

    ``path`` is a run or one of its checkpoints. InputError where there is no checkpoint, or no discriminator of samples
    alone whose score says real or fake.
    """

    def __init__(self, path: Path, device: str | torch.device = "cpu"):
        run = run_directory.of(path)
        saved = [path] if (path / checkpoint.MANIFEST).is_file() else checkpoint.all_in(run) if run else []
        if not saved:
            raise InputError(f"--battle: {path} holds no checkpoint, and a battle needs its discriminator: give a run.")
        self.place, self.trained = saved[-1], load(saved[-1], device)
        recipe = self.trained.recipe
        if "D" not in recipe.judges or recipe.given or "accuracy_real" not in recipe.telling:
            raise InputError(
                f"--battle: recipe {recipe.name} of {path} has no discriminator that tells real from fake by a sample "
                "alone: give runs of recipes such as dcgan, lsgan or gran."
            )
        self.threshold = recipe.threshold
        self.shape = self.trained.specs["x"].shape
        self.discriminator = self.read(device)

    def read(self, device: str | torch.device) -> nn.Module:
        """D of the checkpoint as it trained: not averaged, by the statistics of a batch where it has BatchNorm.

        Running statistics are those of real and fake batches in turn, and fit neither.
        """
        with torch.random.fork_rng(devices=[]):
            network = self.trained.recipe.build(self.trained.specs)["D"]
        try:
            network.load_state_dict(load_file(self.place / "D.safetensors"))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise checkpoint.damaged(self.place, error) from None
        return network.to(device)

    @torch.no_grad()
    def taken_for_real(self, samples: Tensor) -> float:
        """The share of samples [N, ...] that D scores above the threshold, in batches of one kind, as it trained."""
        device = next(self.discriminator.parameters()).device
        scores = torch.cat([self.discriminator(part.to(device)) for part in samples.split(BATCH)])
        return (scores > self.threshold).float().mean().item()


def contest(run: Path, other: Path, data: Dataset, count: int, device: str | torch.device = "cpu") -> BattleReport:
    """The battle of two runs on the first ``count`` rows of ``data`` and as many samples of each generator."""
    a, b = Fighter(run, device), Fighter(other, device)
    if a.shape != b.shape:
        raise InputError(f"--battle: {run} is of samples {a.shape}, {other} of {b.shape}: give runs of one size.")
    real = decode(next(iter(data.columns)), data.samples[:count])
    made_a, made_b = draw(a.trained, count), draw(b.trained, count)
    return battle_report(
        str(other), 1 - a.taken_for_real(real), 1 - b.taken_for_real(real), a.taken_for_real(made_b),
        b.taken_for_real(made_a),
    )  # fmt: skip
