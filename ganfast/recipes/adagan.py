"""AdaGAN: Boosting Generative Models (Tolstikhin et al. 2017, arXiv:1701.02386)."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from ganfast.models import architectures
from ganfast.models.mixture import mixture
from ganfast.objectives import boosting_weights, discriminator_bce, generator_non_saturating
from ganfast.recipes.base import Player, Stage, scores, share
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class AdaGAN(TwoPlayerGAN):
    """A mixture of generators, each trained on what those before it have missed (Tolstikhin et al. 2017).

    Games 0, 2, 4, … train the generators G_1, G_2, G_3, … with discriminators of their own; each one between trains M,
    which tells the mixture so far from the data and so says how much of a sample is covered already.
    """

    name = "adagan"
    judges = ()
    match_features = None
    merge: ClassVar[bool] = False
    norm = False  # BatchNorm would see the data without its weights
    game: ClassVar[int] = 0
    """the place in the run, of 2·components − 1"""

    latent_dim: int = 101
    """numbers in a latent vector; the last one chooses the generator"""
    components: int = 3
    """generators in the mixture, in the end in equal shares"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.components >= 1, "components", "be at least 1")
        self.require(self.latent_dim >= 2, "latent_dim", "be at least 2")

    def stages(self, steps):
        """Each generator has its share of the steps, and M a fifth of it before."""
        found = []
        for k in range(self.components):
            own = max(steps // self.components + (k < steps % self.components), 2)
            judging = max(own // 5, 1) if k else 0
            found += [Stage(judging, self.at(2 * k - 1))] if k else []
            found += [Stage(own - judging, self.at(2 * k))]
        return found

    def at(self, game: int) -> "AdaGAN":
        other = copy.copy(self)
        object.__setattr__(other, "game", game)
        return other

    @property
    def averaged(self):
        return tuple(f"G_{k + 1}" for k in range((self.game + 2) // 2))

    @property
    def newest(self) -> int:
        return len(self.averaged)

    def networks(self, data):
        shape, kind = data["x"].shape, self.architecture
        judge = lambda: architectures.discriminator(shape, self.width, kind, self.norm)  # noqa: E731
        made = {g: architectures.generator(shape, self.latent_dim - 1, self.width, kind) for g in self.averaged}
        made |= {"M": judge()} if self.game else {}
        return made if self.game % 2 else made | {f"D_{self.newest}": judge()}

    def players(self):
        if self.game % 2:
            return [Player(("M",), self.judge, times=self.d_steps)]
        discriminator = Player((f"D_{self.newest}",), self.discriminator, times=self.d_steps, name="d")
        return [discriminator, Player((f"G_{self.newest}",), self.generator, name="g")]

    def judge(self, t):
        mixed = self.sample(vars(t), t.normal(self.latent_dim), {})
        real, fake = scores(t.M, t.x, mixed)
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return discriminator_bce(real, fake)

    def discriminator(self, t):
        t.fake = getattr(t, f"G_{self.newest}")(t.normal(self.latent_dim - 1))
        real, fake = scores(getattr(t, f"D_{self.newest}"), t.x, t.fake.detach())
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        if not self.game:
            return discriminator_bce(real, fake)
        ratio = t.M(t.x).detach().float().neg().exp()  # (1 − σ)/σ of mixture to data
        weights = boosting_weights(ratio, 1 / self.newest, t.gather(ratio))
        t.log(missed=share(weights > 1))
        # in expectation the same as to draw the batch by these weights, as the paper does
        return (weights * F.softplus(-real.float())).mean() + discriminator_bce(None, fake)

    def generator(self, t):
        return generator_non_saturating(getattr(t, f"D_{self.newest}")(t.fake))

    def sample(self, nets, z, given):
        return mixture([nets[name] for name in self.averaged], z)
