"""EBGAN: Energy-based Generative Adversarial Network (Zhao, Mathieu and LeCun 2017, arXiv:1609.03126)."""

from dataclasses import dataclass

from ganfast.models import architectures, energy
from ganfast.objectives import discriminator_energy, generator_energy, pulling_away
from ganfast.recipes.base import scores
from ganfast.recipes.two_player import TwoPlayerGAN


@dataclass(frozen=True, kw_only=True)
class EBGAN(TwoPlayerGAN):
    """The discriminator is an autoencoder: what it reconstructs badly has a high energy (Zhao et al. 2017)."""

    name = "ebgan"
    averaged = ("G", "D")
    telling = ("energy_real", "energy_fake")

    margin: float = 0.5
    """m, the energy up to which fake samples are pushed; energies are mean squared errors"""
    pulling_away: float = 0.1
    """weight of the term that keeps the representations of fake samples apart; 0: EBGAN without it"""
    lr: float = 1e-3
    """Adam's learning rate"""

    match_features = None

    def __post_init__(self):
        super().__post_init__()
        self.require(self.margin > 0, "margin", "be above 0")
        self.require(self.pulling_away >= 0, "pulling_away", "be 0 or more")

    def networks(self, data):
        shape = data["x"].shape
        generator = architectures.generator(shape, self.latent_dim, self.width, self.architecture)
        return {"G": generator, "D": energy.autoencoder(shape, self.width)}

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach(), self.merge)
        t.log(energy_real=real.mean(), energy_fake=fake.mean())
        return discriminator_energy(real, fake, self.margin)

    def generator(self, t):
        loss = generator_energy(t.D(t.fake))
        if self.pulling_away:
            loss = loss + self.pulling_away * pulling_away(t.D.encoder(t.fake))
        return loss

    def reconstruct(self, nets, x):
        return nets["D"].reconstruct(x)
