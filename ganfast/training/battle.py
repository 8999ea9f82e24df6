"""The generative adversarial metric between two runs, by the networks of their last checkpoints."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ganfast.data import Dataset
from ganfast.data.sampler import decode
from ganfast.errors import InputError
from ganfast.metrics.battle import BattleReport, battle_report
from ganfast.models import latents
from ganfast.recipes import load
from ganfast.training import checkpoint, run_directory

BATCH = 64  # the default of recipes


class Fighter:
    """The networks of a run's last checkpoint as they trained: not averaged, in batches of one kind of samples.

    Layers with BatchNorm take a batch's own statistics: running ones of a discriminator are of real and fake batches in
    turn, and fit neither. ``path`` is a run or one of its checkpoints. InputError where there is no checkpoint, or no
    discriminator of samples alone whose score says real or fake.
    """

    def __init__(self, path: Path, device: str | torch.device = "cpu"):
        run = run_directory.of(path)
        saved = [path] if (path / checkpoint.MANIFEST).is_file() else checkpoint.all_in(run) if run else []
        if not saved:
            raise InputError(f"--battle: {path} holds no checkpoint, and a battle needs its discriminator: give a run.")
        trained = load(saved[-1])
        self.recipe, self.device, self.path = trained.recipe, device, path
        tells = "D" in self.recipe.judges and "accuracy_real" in self.recipe.telling
        if not tells or self.recipe.given or "x" not in trained.specs:
            raise self.unfit()
        self.shape = trained.specs["x"].shape
        with torch.random.fork_rng(devices=[]):
            self.networks = {name: net.to(device) for name, net in self.recipe.build(trained.specs).items()}
        for name, network in self.networks.items():
            self.restore(network, saved[-1] / f"{name}.safetensors")

    def restore(self, network: nn.Module, file: Path) -> None:
        try:
            network.load_state_dict(load_file(file))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise checkpoint.damaged(file.parent, error) from None

    def unfit(self) -> InputError:
        return InputError(
            f"--battle: recipe {self.recipe.name} of {self.path} has no discriminator that tells real from fake by a "
            "sample alone: give runs of recipes such as dcgan, lsgan or gran."
        )

    def samples(self, count: int) -> Tensor:
        """[count, ...] on the CPU, of the seeds 0 … count − 1."""
        z = latents(range(count), self.recipe.latent_dim)
        parts = [self.recipe.sample(self.networks, part.to(self.device), {}) for part in z.split(BATCH)]
        return torch.cat([part.cpu() for part in parts])

    def taken_for_real(self, samples: Tensor) -> float:
        """The share of samples [N, ...] that D scores above its threshold."""
        scores = torch.cat([self.networks["D"](part.to(self.device)) for part in samples.split(BATCH)])
        if scores.shape != samples.shape[:1]:  # sgan has K logits, pacgan a score of several samples
            raise self.unfit()
        return (scores > self.recipe.threshold).float().mean().item()


@torch.no_grad()
def contest(run: Path, other: Path, data: Dataset, count: int, device: str | torch.device = "cpu") -> BattleReport:
    """The battle of two runs on ``count`` rows of ``data``, evenly spaced, and as many samples of each generator."""
    a, b = Fighter(run, device), Fighter(other, device)
    if a.shape != b.shape:
        raise InputError(f"--battle: {run} is of samples {a.shape}, {other} of {b.shape}: give runs of one shape.")
    rows = torch.linspace(0, len(data) - 1, count, dtype=torch.float64).long()
    real = decode(next(iter(data.columns)), data.samples[rows])
    of_a, of_b = a.samples(count), b.samples(count)
    return battle_report(
        str(other), 1 - a.taken_for_real(real), 1 - b.taken_for_real(real), a.taken_for_real(of_b),
        b.taken_for_real(of_a),
    )  # fmt: skip
