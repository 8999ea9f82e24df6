"""CycleGAN: Unpaired Image-to-Image Translation (Zhu et al. 2017, arXiv:1703.10593)."""

from dataclasses import dataclass
from typing import Literal

import torch

from ganfast.models import cyclegan
from ganfast.objectives import discriminator_least_squares, least_squares
from ganfast.recipes.base import Player, one_shape, scores
from ganfast.recipes.pool import draw_from_pool
from ganfast.recipes.unpaired import Unpaired


@dataclass(frozen=True, kw_only=True)
class CycleGAN(Unpaired):
    """Two generators translate between unpaired sets, --data and --data-b, and undo each other (Zhu et al. 2017)."""

    name = "cyclegan"
    averaged = ("G_ab", "G_ba")
    judges = ("D_a", "D_b")
    telling = ("cycle",)

    cycle: float = 10.0
    """weight λ of the cycle-consistency loss"""
    identity: float = 0.5
    """weight of the identity loss, over λ; 0 leaves it out"""
    pool: int = 50
    """earlier translations that the discriminators see again"""
    direction: Literal["ab", "ba"] = "ab"
    """the translation that is shown and exported; both are saved"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.pool >= 1, "pool", "be at least 1")
        for name in ("cycle", "identity"):
            self.require(getattr(self, name) >= 0, name, "be 0 or more")

    @property
    def given(self):
        source = self.direction[0]
        return {source: self.columns[source]}

    @property
    def answer(self):
        return self.direction[1]

    def networks(self, data):
        channels = one_shape(data)[0]
        return {
            **{g: cyclegan.Generator(channels, channels, self.width, self.blocks) for g in ("G_ab", "G_ba")},
            **{d: self.patches(data) for d in ("D_a", "D_b")},
        }

    def state(self, data):
        pools = {f"pool_{side}": torch.zeros(self.pool, *data[side].shape) for side in "ab"}
        return pools | {f"count_{side}": torch.zeros((), dtype=torch.int64) for side in "ab"}

    def players(self):
        return [
            Player(("G_ab", "G_ba"), self.generators, keeps=(), after=self.fill_pools, name="g"),
            Player(("D_a", "D_b"), self.discriminators, name="d"),
        ]

    def generators(self, t):
        a, b, same = t.a, t.b, self.identity > 0
        t.fake_a, *same_a = t.G_ba(torch.cat([b, a]) if same else b).split(len(b))  # no layer mixes samples
        t.fake_b, again_b, *same_b = t.G_ab(torch.cat([a, t.fake_a, b] if same else [a, t.fake_a])).split(len(a))
        cycle = (t.G_ba(t.fake_b) - a).abs().mean() + (again_b - b).abs().mean()
        loss = least_squares(t.D_a(t.fake_a), 1.0) + least_squares(t.D_b(t.fake_b), 1.0) + self.cycle * cycle
        t.log(cycle=cycle)
        if same:
            identity = (same_a[0] - a).abs().mean() + (same_b[0] - b).abs().mean()
            t.log(identity=identity)
            loss = loss + self.cycle * self.identity * identity
        return loss

    def fill_pools(self, t):
        t.old_a = draw_from_pool(t, t.state.pool_a, t.state.count_a, t.fake_a)
        t.old_b = draw_from_pool(t, t.state.pool_b, t.state.count_b, t.fake_b)

    def discriminators(self, t):
        of_a = discriminator_least_squares(*scores(t.D_a, t.a, t.old_a))
        return of_a + discriminator_least_squares(*scores(t.D_b, t.b, t.old_b))

    def sample(self, nets, z, given):
        return nets[f"G_{self.direction}"](given[self.direction[0]])
