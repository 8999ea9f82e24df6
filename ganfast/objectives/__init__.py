"""What the two networks of a GAN minimise."""

from ganfast.objectives.adversarial import (
    LOSSES,
    discriminator_bce,
    discriminator_hinge,
    discriminator_least_squares,
    generator_hinge,
    generator_least_squares,
    generator_minimax,
    generator_non_saturating,
    least_squares,
    wasserstein,
)
from ganfast.objectives.boosting import boosting_weights
from ganfast.objectives.contrastive import patch_nce
from ganfast.objectives.energy import discriminator_energy, generator_energy, pulling_away
from ganfast.objectives.entropy import conditional_entropy, marginal_entropy
from ganfast.objectives.f_divergence import (
    DIVERGENCES,
    Divergence,
    discriminator_f,
    generator_f_minimax,
    generator_f_non_saturating,
)
from ganfast.objectives.ranking import bayesian_personalized_ranking
from ganfast.objectives.relativistic import relativistic_average, relativistic_pairing
from ganfast.objectives.unrolled import unroll
from ganfast.objectives.variational import (
    bernoulli_log_likelihood,
    gaussian_kl,
    gaussian_log_likelihood,
    reparameterize,
)

__all__ = [
    "DIVERGENCES",
    "LOSSES",
    "Divergence",
    "bayesian_personalized_ranking",
    "bernoulli_log_likelihood",
    "boosting_weights",
    "conditional_entropy",
    "discriminator_bce",
    "discriminator_energy",
    "discriminator_f",
    "discriminator_hinge",
    "discriminator_least_squares",
    "gaussian_kl",
    "gaussian_log_likelihood",
    "generator_energy",
    "generator_f_minimax",
    "generator_f_non_saturating",
    "generator_hinge",
    "generator_least_squares",
    "generator_minimax",
    "generator_non_saturating",
    "least_squares",
    "marginal_entropy",
    "patch_nce",
    "pulling_away",
    "relativistic_average",
    "relativistic_pairing",
    "reparameterize",
    "unroll",
    "wasserstein",
]
