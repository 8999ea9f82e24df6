"""One file per published GAN: its networks, its objective and its defaults."""

from ganfast.recipes.base import OriginalGAN, Recipe
from ganfast.recipes.dcgan import DCGAN
from ganfast.recipes.gan import GAN
from ganfast.recipes.wgan import WGAN

RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (DCGAN, GAN, WGAN)}

__all__ = ["DCGAN", "GAN", "RECIPES", "WGAN", "OriginalGAN", "Recipe"]
