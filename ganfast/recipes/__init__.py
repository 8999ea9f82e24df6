"""One file per published GAN: its networks, its objective and its defaults."""

from ganfast.recipes.base import OriginalGAN, Recipe
from ganfast.recipes.dcgan import DCGAN
from ganfast.recipes.gan import GAN
from ganfast.recipes.r3gan import R3GAN
from ganfast.recipes.wgan import WGAN
from ganfast.recipes.wgan_gp import WGANGP

RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (DCGAN, GAN, WGAN, WGANGP, R3GAN)}

__all__ = ["DCGAN", "GAN", "R3GAN", "RECIPES", "WGAN", "WGANGP", "OriginalGAN", "Recipe"]
