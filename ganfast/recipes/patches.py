"""What discriminators of patches can have."""

from ganfast.data.options import size_word
from ganfast.errors import InputError


def check_patches(recipe, size=None) -> None:
    """``InputError`` for remedies that patches exclude; with ``size`` for more ``layers`` than images have room for."""
    recipe.require(recipe.layers >= 1, "layers", "be at least 1")
    refuse_discrimination(recipe)
    if size is not None:
        most = (min(size) // 3).bit_length() - 1  # its last normalisation needs more than a pixel
        recipe.require(recipe.layers <= most, "layers", f"be at most {most} for images of {size_word(*size)} pixels")


def refuse_discrimination(recipe) -> None:
    """``InputError`` for minibatch discrimination."""
    if recipe.remedies.minibatch == "discrimination":
        raise InputError(
            "a discriminator of patches has no one place for minibatch discrimination: give --minibatch stddev."
        )
