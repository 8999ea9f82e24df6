"""VAE: Auto-Encoding Variational Bayes (Kingma and Welling 2013, arXiv:1312.6114)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ganfast.models import architectures
from ganfast.objectives import bernoulli_log_likelihood, gaussian_kl, gaussian_log_likelihood, reparameterize
from ganfast.recipes.base import Player, Recipe


class Deviation(nn.Module):
    """log σ, one number for all pixels, which are in [0, 1]; σ is 0.3 at first."""

    def __init__(self):
        super().__init__()
        self.log = nn.Parameter(torch.full((1,), -1.2))

    def forward(self):
        return self.log


@dataclass(frozen=True, kw_only=True)
class VAE(Recipe):
    """Encoder and decoder that raise a lower bound on the likelihood, without an adversary (Kingma et al. 2013)."""

    name = "vae"
    telling = ("elbo", "kl")

    latent_dim: int = 20
    """numbers in a code"""
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """p(x|z) of pixels in [0, 1]: cross-entropy, or a Gaussian of one learned standard deviation"""
    kl_weight: float = 1.0
    """weight of KL(q(z|x) ‖ p(z)); 0: a plain autoencoder"""
    width: int = 125
    """fully connected layers have four times as many units; of convolutions features at the largest resolution"""
    architecture: Literal["dcgan", "resnet", "mlp"] = "mlp"
    """both networks"""
    lr: float = 1e-3
    """Adam's learning rate"""
    beta1: float = 0.9
    """Adam's decay rate of the first moment"""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.kl_weight >= 0, "kl_weight", "be 0 or more")

    @property
    def averaged(self):
        return ("E", "G", "S") if self.likelihood == "gaussian" else ("E", "G")

    def networks(self, data):
        shape = data["x"].shape
        networks = {
            "E": architectures.encoder(shape, 2 * self.latent_dim, self.width, self.architecture),
            "G": architectures.generator(shape, self.latent_dim, self.width, self.architecture),
            "S": Deviation(),
        }
        return {name: networks[name] for name in self.averaged}

    def players(self):
        return [Player(self.averaged, self.negative_bound, name="vae")]

    def negative_bound(self, t):
        nets = {name: getattr(t, name) for name in self.averaged}
        likelihood, kl = (term.mean() for term in self.terms(nets, t.x, t.normal(self.latent_dim)))
        t.log(elbo=likelihood - kl, reconstruction=-likelihood, kl=kl)
        return self.kl_weight * kl - likelihood

    def terms(self, nets, x, noise):
        """log p(x|z) and KL(q(z|x) ‖ p(z)), each [B], at one z of q."""
        mean, log_variance = nets["E"](x).chunk(2, 1)
        seen = nets["G"](reparameterize(mean, log_variance, noise))
        if self.likelihood == "gaussian":
            likelihood = gaussian_log_likelihood(x, seen, nets["S"]())
        else:
            likelihood = bernoulli_log_likelihood(x, seen)
        return likelihood, gaussian_kl(mean, log_variance)

    def bound(self, nets, x):
        likelihood, kl = self.terms(nets, x, torch.randn(len(x), self.latent_dim, device=x.device))
        return likelihood - kl

    def encode(self, nets, x):
        return nets["E"](x).chunk(2, 1)[0]
