"""CycleGAN: Unpaired Image-to-Image Translation (Zhu et al. 2017, arXiv:1703.10593)."""

from dataclasses import dataclass
from typing import Literal

import torch

from ganfast.data.columns import Images
from ganfast.data.options import size_word
from ganfast.errors import InputError
from ganfast.models import cyclegan
from ganfast.objectives import least_squares
from ganfast.recipes.base import Player, Recipe, one_shape
from ganfast.recipes.pool import draw_from_pool


@dataclass(frozen=True, kw_only=True)
class CycleGAN(Recipe):
    """Two generators translate between unpaired sets, --data and --data-b, and undo each other (Zhu et al. 2017)."""

    name = "cyclegan"
    columns = {"a": Images(), "b": Images(source=1)}
    averaged = ("G_ab", "G_ba")
    judges = ("D_a", "D_b")
    telling = ("cycle",)
    lr_decay = "late-linear"
    batch = 1
    sides = 4

    width: int = 64
    """features of the first layers"""
    blocks: int = 9
    """residual blocks of a generator; the paper has 6 for images of 128 pixels and 9 for 256"""
    layers: int = 3
    """layers of a patch discriminator; 3 is 70×70 pixels a patch"""
    cycle: float = 10.0
    """weight λ of the cycle-consistency loss"""
    identity: float = 0.5
    """weight of the identity loss, over λ"""
    pool: int = 50
    """earlier translations that the discriminators see again"""
    direction: Literal["ab", "ba"] = "ab"
    """the translation that is shown and exported; both are saved"""

    def __post_init__(self):
        super().__post_init__()
        if self.remedies.minibatch == "discrimination":
            raise InputError(
                "a discriminator of patches has no one place for minibatch discrimination: give --minibatch stddev."
            )
        for name in ("blocks", "layers", "pool"):
            self.require(getattr(self, name) >= 1, name, "be at least 1")

    @property
    def given(self):
        source = self.direction[0]
        return {source: self.columns[source]}

    @property
    def answer(self):
        return self.direction[1]

    def networks(self, data):
        channels, *sides = one_shape(data)
        most = (min(sides) // 3).bit_length() - 1  # its last normalisation needs more than a pixel
        self.require(self.layers <= most, "layers", f"be at most {most} for images of {size_word(*sides)} pixels")
        return {
            **{g: cyclegan.Generator(channels, channels, self.width, self.blocks) for g in ("G_ab", "G_ba")},
            **{d: cyclegan.PatchDiscriminator(channels, self.width, self.layers) for d in ("D_a", "D_b")},
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
        t.fake_b, same_b = t.G_ab(torch.cat([t.a, t.b])).chunk(2)  # no layer mixes samples
        t.fake_a, same_a = t.G_ba(torch.cat([t.b, t.a])).chunk(2)
        cycle = (t.G_ba(t.fake_b) - t.a).abs().mean() + (t.G_ab(t.fake_a) - t.b).abs().mean()
        identity = (same_a - t.a).abs().mean() + (same_b - t.b).abs().mean()
        t.log(cycle=cycle, identity=identity)
        adversarial = least_squares(t.D_a(t.fake_a), 1.0) + least_squares(t.D_b(t.fake_b), 1.0)
        return adversarial + self.cycle * (cycle + self.identity * identity)

    def fill_pools(self, t):
        t.old_a = draw_from_pool(t, t.state.pool_a, t.state.count_a, t.fake_a)
        t.old_b = draw_from_pool(t, t.state.pool_b, t.state.count_b, t.fake_b)

    def discriminators(self, t):
        of_a = least_squares(t.D_a(t.a), 1.0) + least_squares(t.D_a(t.old_a), 0.0)
        return (of_a + least_squares(t.D_b(t.b), 1.0) + least_squares(t.D_b(t.old_b), 0.0)) / 2

    def sample(self, nets, z, given):
        return nets[f"G_{self.direction}"](given[self.direction[0]])
