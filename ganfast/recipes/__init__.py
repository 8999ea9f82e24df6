"""One file per published GAN: its networks, its players and their losses, and its defaults.

``RECIPES`` has all of this folder, and those that other packages offer as entry points of the group
``ganfast.recipes``.
"""

import importlib
import importlib.metadata
import pkgutil
import warnings

from ganfast.recipes.base import Player, Recipe, Stage
from ganfast.recipes.trained import Trained, load
from ganfast.recipes.two_player import TwoPlayerGAN

RECIPES: dict[str, type[Recipe]] = {}

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    for _found in vars(importlib.import_module(f"{__name__}.{_module}")).values():
        if isinstance(_found, type) and issubclass(_found, Recipe) and "name" in vars(_found):
            RECIPES[_found.name] = globals()[_found.__name__] = _found
RECIPES = dict(sorted(RECIPES.items()))

__all__ = ["RECIPES", "Player", "Recipe", "Stage", "Trained", "TwoPlayerGAN", "load"]
__all__ += [_each.__name__ for _each in RECIPES.values()]

for _entry in importlib.metadata.entry_points(group="ganfast.recipes"):
    try:
        RECIPES[_entry.name] = _entry.load()
    except Exception as error:  # whatever another package's module does wrong
        warnings.warn(f"recipe {_entry.name} ({_entry.value}) cannot be loaded: {error}", stacklevel=2)
