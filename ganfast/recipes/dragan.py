"""DRAGAN: On Convergence and Stability of GANs (Kodali et al. 2017, arXiv:1705.07215)."""

from dataclasses import dataclass

from ganfast import penalty
from ganfast.recipes.ns_gp import NSGP


@dataclass(frozen=True, kw_only=True)
class DRAGAN(NSGP):
    """The original game with a penalty around the data, where no generator is needed (Kodali et al. 2017)."""

    name = "dragan"

    spread: float = 0.5
    """how far around a sample, in standard deviations of the data"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.spread >= 0, "spread", "be 0 or more")

    def pull(self, t):
        return penalty.dragan(t.D, t.x, self.penalty_weight, scale=self.spread, eps=t.uniform())
