"""The trained recipe that --network names."""

from pathlib import Path

from ganfast import recipes
from ganfast.errors import InputError
from ganfast.recipes import Trained
from ganfast.training import TrainOptions

GIVEN = ("labels", "attributes", "images", "maps")  # what a command can make or read for a recipe


def load(path: Path, device: str, direction: str | None = None, domain: str | None = None) -> Trained:
    """The recipe at ``path`` on the device of that name, turned to a direction or domain where one is given."""
    return recipes.load(path, TrainOptions(data="", device=device).torch_device(), direction, domain)


def conditions(trained: Trained) -> dict[str, str]:
    """Kind → the name of what the recipe is given of it; ``InputError`` where no command can give that."""
    found = {}
    for name, spec in trained.given.items():
        if spec.kind not in GIVEN or spec.kind in found:
            another = "another " if spec.kind in found else ""
            raise InputError(
                f"recipe {trained.recipe.name} is given {another}{spec.kind} ({name}), which this command cannot "
                "make: use ganfast.load in Python."
            )
        found[spec.kind] = name
    return found
