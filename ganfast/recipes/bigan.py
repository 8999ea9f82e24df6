"""BiGAN: Adversarial Feature Learning (Donahue et al. 2016, arXiv:1605.09782)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ganfast.data.columns import Samples
from ganfast.models import architectures, mlp
from ganfast.models.priors import uniform
from ganfast.objectives import discriminator_bce
from ganfast.recipes.base import Player, Recipe, share


@dataclass(frozen=True, kw_only=True)
class BiGAN(Recipe):
    """An encoder learns the generator's inverse, by pairs of samples and codes (Donahue et al. 2016).

    D tells (x, E(x)) from (G(z), z); E and G make them alike. Where they are, E and G are inverses (theorem 2).
    """

    name = "bigan"
    columns = {"x": Samples()}
    averaged = ("G", "E")
    judges = ("D",)
    telling = ("accuracy_encoded", "accuracy_generated")
    batch = 128
    numbers: ClassVar[int] = 1
    """outputs of E for each number of a code"""

    latent_dim: int = 50
    """numbers in a code, uniform in [-1, 1]"""
    width: int = 64
    """features at the largest resolution, doubled with every halving; fully connected layers have 16 units for each"""
    architecture: Literal["mlp", "dcgan", "resnet"] = "mlp"
    """all three networks; points have fully connected ones"""

    def networks(self, data):
        shape = data["x"].shape
        connected = architectures.fully_connected(shape, self.architecture)
        width, units = (4 if connected else 1) * self.width, 16 * self.width
        if connected:  # as deep as E, as in the paper
            generator = mlp.Generator(shape, self.latent_dim, units, hidden=2)
        else:
            generator = architectures.generator(shape, self.latent_dim, width, self.architecture)
        seen = architectures.encoder(shape, units, width, self.architecture, norm=False)
        return {
            "G": generator,
            "E": architectures.encoder(shape, self.numbers * self.latent_dim, width, self.architecture),
            "D": architectures.Joint(seen, units, self.latent_dim),
        }

    def players(self):
        return [Player(("D",), self.discriminator), Player(("G", "E"), self.inverses)]

    def discriminator(self, t):
        t.z = self.code_of(t.normal(self.latent_dim))
        t.fake, t.code = t.G(t.z), self.infer(t)
        encoded, generated = t.D(t.x, t.code.detach()), t.D(t.fake.detach(), t.z)
        t.log(accuracy_encoded=share(encoded > 0), accuracy_generated=share(generated < 0))
        return discriminator_bce(encoded, generated)

    def inverses(self, t):
        """D's loss with the labels swapped (section 3.4): gradients also where D is sure."""
        return discriminator_bce(t.D(t.fake, t.z), t.D(t.x, t.code))

    def infer(self, t):
        """Codes of ``t.x`` in training."""
        return t.E(t.x)

    def code_of(self, z):
        return uniform(z)

    def sample(self, nets, z, given):
        return nets["G"](self.code_of(z))

    def encode(self, nets, x):
        return nets["E"](x)

    def decode(self, nets, code):
        return nets["G"](code)
