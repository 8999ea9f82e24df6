"""ALI: Adversarially Learned Inference (Dumoulin et al. 2016, arXiv:1606.00704)."""

from dataclasses import dataclass

from ganfast.recipes.bigan import BiGAN


@dataclass(frozen=True, kw_only=True)
class ALI(BiGAN):
    """The game of bigan with a stochastic encoder: z = μ(x) + σ(x)·ε, and z ~ N(0, I) for G (Dumoulin et al. 2016)."""

    name = "ali"
    numbers = 2  # μ and log σ²

    latent_dim: int = 64
    """numbers in a code, normal"""

    def infer(self, t):
        mean, log_variance = t.E(t.x).chunk(2, 1)
        t.log(deviation=(log_variance / 2).exp().mean())
        return mean + (log_variance / 2).exp() * t.normal(self.latent_dim)

    def code_of(self, z):
        return z

    def encode(self, nets, x):
        return nets["E"](x).chunk(2, 1)[0]
