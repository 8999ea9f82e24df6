"""BEGAN: Boundary Equilibrium Generative Adversarial Networks (Berthelot et al. 2017, arXiv:1703.10717)."""

from dataclasses import dataclass

from ganfast.models import began
from ganfast.models.priors import uniform
from ganfast.recipes.base import Player, Recipe


@dataclass(frozen=True, kw_only=True)
class BEGAN(Recipe):
    """The critic is an autoencoder, and a control loop balances its errors on real and fake (Berthelot et al. 2017)."""

    name = "began"
    averaged = ("G", "D")
    telling = ("convergence", "k")
    batch = 16

    latent_dim: int = 64
    """numbers in a latent vector, and between encoder and decoder"""
    width: int = 64
    """features of each convolution; the encoder's grow by as many with every halving"""
    gamma: float = 0.5
    """γ, the error on fake images over that on real ones in equilibrium: less is sharper and less varied"""
    gain: float = 0.001
    """λ_k, the gain of the control loop that moves k"""
    lr: float = 1e-4
    """Adam's learning rate"""

    def __post_init__(self):
        super().__post_init__()
        self.require(0 <= self.gamma <= 1, "gamma", "lie in [0, 1]")
        self.require(self.gain > 0, "gain", "be above 0")

    def networks(self, data):
        channels, *size = data["x"].shape
        shape = size, channels, self.latent_dim, self.width
        return {"G": began.Decoder(*shape), "D": began.Autoencoder(*shape)}

    def state(self, data):
        return {"k": 0.0}

    def players(self):
        return [Player(("D",), self.critic), Player(("G",), self.generator, after=self.balance)]

    def critic(self, t):
        t.fake = t.G(t.uniform(self.latent_dim) * 2 - 1)
        fake = t.fake.detach()
        t.error = (t.D(t.x) - t.x).abs().mean()
        return t.error - t.state.k * (t.D(fake) - fake).abs().mean()

    def generator(self, t):
        t.error_of_fake = (t.D(t.fake) - t.fake).abs().mean()
        return t.error_of_fake

    def balance(self, t):
        real, fake = t.mean(t.error), t.mean(t.error_of_fake)
        t.state.k = (t.state.k + self.gain * (self.gamma * real - fake)).clamp(0, 1)
        t.log(convergence=real + (self.gamma * real - fake).abs(), k=t.state.k)

    def sample(self, nets, z, given):
        return nets["G"](uniform(z)).clamp(-1, 1)

    def reconstruct(self, nets, x):
        return nets["D"](x).clamp(-1, 1)
