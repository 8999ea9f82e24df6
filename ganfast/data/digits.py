"""The 1,797 handwritten digits that come with scikit-learn (8×8, 17 grey levels)."""

import numpy as np

from ganfast.data import labels
from ganfast.data.arrays import ArrayRows, ImageArray
from ganfast.errors import InputError


def digits() -> ArrayRows:
    """Grey images with labels; the values 0 to 16 become 0 to 255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("digits: needs scikit-learn; run pip install 'ganfast[demo]'") from error
    found = load_digits()
    pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)
    rows = ArrayRows("digits", ImageArray("digits", pixels), labels.from_array(found.target, len(pixels)))
    rows.default_size = 32
    return rows
