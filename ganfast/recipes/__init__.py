"""One file per published GAN: its networks, its objective and its defaults."""

from ganfast.recipes.base import Recipe
from ganfast.recipes.dcgan import DCGAN
from ganfast.recipes.gan import GAN

RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (DCGAN, GAN)}

__all__ = ["DCGAN", "GAN", "RECIPES", "Recipe"]
