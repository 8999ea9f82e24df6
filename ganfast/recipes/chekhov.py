"""Chekhov GAN: An Online Learning Approach to GANs (Grnarova et al. 2017, arXiv:1706.03269), Algorithm 2."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ganfast.models.snapshots import Snapshots
from ganfast.recipes.base import share
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class Chekhov(OriginalGAN):
    """Each network plays against all that the other has been: follow the regularised leader (Grnarova et al. 2017).

    The paper's heuristic for deep networks: gradient steps on the mean of the losses, and a queue of states further and
    further apart. As in its experiments, samples come from the newest generator.
    """

    name = "chekhov"
    judges = ()  # remedies would change networks and not their earlier states
    match_features = None
    merge: ClassVar[bool] = False
    norm = False  # a stored discriminator judges each sample by itself

    states: int = 5
    """earlier states K of each network"""
    spacing: int = 10
    """steps m until the first one is stored"""
    growth: int = 10
    """further steps until each next one"""
    decay: float = 1e-3
    """C of the regularisation C/√t·‖θ‖² of both networks at step t"""

    def __post_init__(self):
        super().__post_init__()
        self.refuse_remedies("keeps earlier states of its generator", "virtual_batch_norm")
        for name in ("states", "spacing"):
            self.require(getattr(self, name) >= 1, name, "be at least 1")
        for name in ("growth", "decay"):
            self.require(getattr(self, name) >= 0, name, "be 0 or more")

    def networks(self, data):
        made = super().networks(data)
        return made | {f"past_{name}": Snapshots(network, self.states) for name, network in made.items()}

    def state(self, data):
        return {"step": 1.0, "waited": 0.0, "stored": 0.0}

    def players(self):
        discriminator, generator = super().players()
        return [discriminator, replace(generator, after=self.store)]

    def discriminator(self, t):
        z = t.normal(self.latent_dim)
        t.fake = t.G(z)
        batch = torch.cat([t.x, t.fake.detach(), *t.past_G(z)])
        real, *fakes = t.D(batch).chunk(self.states + 2)
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fakes[0] < 0))
        return self.mean(t, [self.loss_d(real, fake) for fake in fakes]) + self.regularization(t, t.D)

    def generator(self, t):
        judged = [t.D(t.fake), *t.past_D(t.fake)]
        return self.mean(t, [self.loss_g(each) for each in judged]) + self.regularization(t, t.G)

    def mean(self, t, losses: list[Tensor]) -> Tensor:
        """Over the newest state and those that are stored already."""
        there = torch.arange(len(losses), device=t.state.stored.device) <= t.state.stored
        return torch.where(there, torch.stack(losses), 0).sum() / there.sum()

    def regularization(self, t, network: nn.Module) -> Tensor:
        return self.decay * t.state.step.rsqrt() * sum(p.square().sum() for p in network.parameters())

    def store(self, t):
        """Every so often the newest states take the oldest one's places."""
        t.state.step += 1
        t.state.waited += 1
        due = t.state.waited >= self.spacing + self.growth * t.state.stored
        places = due & (torch.arange(self.states, device=due.device) == t.state.stored % self.states)
        t.past_G.keep(t.G, places)
        t.past_D.keep(t.D, places)
        t.state.stored += due
        t.state.waited *= ~due
