"""VAE/GAN: Autoencoding beyond pixels using a learned similarity metric (Larsen et al. 2016, arXiv:1512.09300)."""

from dataclasses import dataclass
from typing import Literal

import torch

from ganfast.models import architectures
from ganfast.nn import features_of, keep_features
from ganfast.objectives import discriminator_bce, gaussian_kl, generator_non_saturating, reparameterize
from ganfast.recipes.base import Player, Recipe, share


@dataclass(frozen=True, kw_only=True)
class VAEGAN(Recipe):
    """A VAE that reconstructs what a discriminator sees in images, not their pixels (Larsen et al. 2016).

    Algorithm 1, with the non-saturating loss in the place of −L_GAN. log p(f(x)|z) is of the features f that D's last
    layer reads, so there is no bound on log p(x).
    """

    name = "vae-gan"
    averaged = ("E", "G")
    telling = ("kl", "feature_error")

    latent_dim: int = 64
    """numbers in a code"""
    gamma: float = 0.01
    """γ, the decoder's weight of the reconstruction beside the adversarial loss"""
    width: int = 64
    """features at the largest resolution; they double with every halving, up to eight times"""
    architecture: Literal["dcgan", "resnet", "mlp"] = "dcgan"
    """all three networks"""
    lr: float = 5e-4
    """Adam's learning rate"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.gamma >= 0, "gamma", "be 0 or more")

    def networks(self, data):
        shape = data["x"].shape
        networks = {
            "E": architectures.encoder(shape, 2 * self.latent_dim, self.width, self.architecture),
            "G": architectures.generator(shape, self.latent_dim, self.width, self.architecture),
            "D": architectures.discriminator(shape, self.width, self.architecture),
        }
        keep_features(networks["D"])
        return networks

    def players(self):
        return [Player((name,), loss) for name, loss in
                (("D", self.discriminator), ("G", self.generator), ("E", self.encoder))]  # fmt: skip

    def discriminator(self, t):
        t.noise = t.normal(self.latent_dim)
        t.fake = t.G(t.normal(self.latent_dim))
        t.seen = t.G(reparameterize(*t.E(t.x).chunk(2, 1), t.noise).detach())
        real, fake, seen = t.D(t.x), t.D(t.fake.detach()), t.D(t.seen.detach())
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return discriminator_bce(real, torch.cat([fake, seen]))

    def generator(self, t):
        scores, error = self.compare(t, t.seen)
        return self.gamma * error + generator_non_saturating(torch.cat([t.D(t.fake), scores]))

    def encoder(self, t):
        mean, log_variance = t.E(t.x).chunk(2, 1)
        _, error = self.compare(t, t.G(reparameterize(mean, log_variance, t.noise)))
        kl = gaussian_kl(mean, log_variance).mean()
        t.log(kl=kl, feature_error=error)
        return kl + error

    def compare(self, t, seen):
        """D's scores of reconstructions, and −log p(f(x)|z) = ½‖f(x) − f(seen)‖², up to a constant, on average."""
        with torch.no_grad():
            _, wanted = features_of(t.D, t.x)
        scores, features = features_of(t.D, seen)
        return scores, (features - wanted).float().square().flatten(1).sum(1).mean() / 2

    def encode(self, nets, x):
        return nets["E"](x).chunk(2, 1)[0]
