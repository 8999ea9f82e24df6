"""What recipes share that translate between two sets of images without pairs."""

from dataclasses import dataclass

from ganfast.data.columns import Images
from ganfast.data.options import size_word
from ganfast.errors import InputError
from ganfast.models import cyclegan
from ganfast.recipes.base import Recipe, one_shape
from ganfast.recipes.patches import check_patches


@dataclass(frozen=True, kw_only=True)
class Unpaired(Recipe):
    """Images a of --data and b of --data-b, in orders of their own; residual generators, discriminators of patches."""

    columns = {"a": Images(), "b": Images(source=1)}
    lr_decay = "late-linear"
    batch = 1
    sides = 4

    width: int = 64
    """features of the first layers"""
    blocks: int = 9
    """residual blocks of a generator; CycleGAN's paper has 6 for images of 128 pixels and 9 for 256"""
    layers: int = 3
    """layers of a patch discriminator; 3 is 70×70 pixels a patch"""

    def __post_init__(self):
        super().__post_init__()
        check_patches(self)
        self.require(self.blocks >= 1, "blocks", "be at least 1")

    def patches(self, data) -> cyclegan.PatchDiscriminator:
        """A discriminator for the images of ``data``."""
        channels, *size = one_shape(data)
        if any(side % self.sides or side < 2 * self.sides for side in size):
            raise InputError(
                f"recipe {self.name} needs sides that are multiples of {self.sides}, {2 * self.sides} at least, got "
                f"{size_word(*size)} pixels (--size)."
            )
        check_patches(self, size)
        return cyclegan.PatchDiscriminator(channels, self.width, self.layers)
