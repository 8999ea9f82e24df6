"""Visually-aware fashion recommendation and design with GANs (Kang et al. 2017, arXiv:1711.02231)."""

from dataclasses import dataclass
from typing import ClassVar

from ganfast.data.columns import Attributes, Images, Labels
from ganfast.models import architectures, conditional, dcgan
from ganfast.models.preference import Preference
from ganfast.models.priors import uniform
from ganfast.objectives import bayesian_personalized_ranking
from ganfast.recipes.base import Player
from ganfast.recipes.lsgan import LSGAN


@dataclass(frozen=True, kw_only=True)
class DVBPR(LSGAN):
    """What pleases whom is learned from pictures, beside an LSGAN of each class: to design (Kang et al. 2017).

    Attributes u [B, K] of the data say who chose what: 1 where user k did, 0 where not, anything else is left out.
    """

    name = "dvbpr"
    columns = {"x": Images(), "y": Labels(), "u": Attributes()}
    given = {"y": Labels()}
    averaged = ("G", "D", "preference")
    telling = ("ranked",)
    match_features = None
    architecture: ClassVar[str] = "dcgan"
    merge: ClassVar[bool] = False

    factors: int = 50
    """numbers in a picture's, and a user's, vector"""
    decay: float = 1e-3
    """λ, the weight of the mean squared number of the users' vectors"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.factors >= 1, "factors", "be at least 1")
        self.require(self.decay >= 0, "decay", "be 0 or more")

    def networks(self, data):
        (channels, *size), classes = data["x"].shape, data["y"].classes
        encoder = architectures.encoder(data["x"].shape, self.factors, self.width, self.architecture)
        # no BatchNorm: it judges single designs after training
        discriminator = dcgan.Discriminator(size, channels + classes, self.width, batch_norm=False)
        return {
            "G": conditional.generator(data["x"].shape, self.latent_dim, classes, self.width, self.architecture),
            "D": conditional.ConditionalDiscriminator(discriminator, classes),
            "preference": Preference(encoder, self.factors, data["u"].shape[0]),
        }

    def players(self):
        return [*self.pair(), Player(("preference",), self.ranking)]

    def discriminator(self, t):
        t.fake = t.G(t.uniform(self.latent_dim) * 2 - 1, t.y)
        return self.loss_d(t.D(t.x, t.y), t.D(t.fake.detach(), t.y))

    def generator(self, t):
        return self.loss_g(t.D(t.fake, t.y))

    def ranking(self, t):
        """The siamese network's: both pictures of a pair go through one encoder, so a batch gives all its pairs."""
        loss, ranked = bayesian_personalized_ranking(t.preference(t.x), t.u == 1, t.u == 0)
        t.log(ranked=ranked)
        return loss + self.decay * t.preference.users.square().mean()

    def sample(self, nets, z, given):
        return nets["G"](uniform(z), given["y"])

    def prefer(self, nets, x):
        return nets["preference"](x)

    def realism(self, nets, x, given):
        return -(nets["D"](x, given["y"]) - self.b).square()
