"""One image, whatever its mode and size, to uint8 pixels [size, size, channels]."""

from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ganfast.errors import InputError

MIN_SIDE = 8  # pixels; anything smaller is an icon, a tracking pixel or a mistake


@contextmanager
def naming(title: str):
    """Turn whatever reading an image raises into an InputError that begins with ``title``."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{title}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{title}: not an image in a format that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{title}: {error}") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError, ...
        raise InputError(f"{title}: cannot be read ({error or type(error).__name__})") from error


def header(file) -> Image.Image:
    """Open an image without decoding a pixel, and refuse what is too large or too small to be data."""
    image = Image.open(file)
    if image.format == "EPS":
        raise InputError("an EPS file is a program for Ghostscript, which is not run; save it as PNG")
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit and width * height > limit:
        raise InputError(f"an image of {width}×{height} pixels, more than the {limit} that are safe to decode")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"an image of {width}×{height} pixels; both sides must be {MIN_SIDE} or more")
    return image


def is_grey(image: Image.Image) -> bool:
    """Whether the image's mode has no colour (a palette counts as colour)."""
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def upright(file) -> Image.Image:
    """The first frame of an image file, turned as its EXIF says."""
    image = header(file)
    ImageOps.exif_transpose(image, in_place=True)
    return image


def halves(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The left and the right half, of the same size; of an odd width the column in the middle is left out."""
    width, height = image.size
    half = half_width(width)
    return image.crop((0, 0, half, height)), image.crop((width - half, 0, width, height))


def half_width(width: int) -> int:
    """The width in pixels of either side of a pair in one picture; InputError where it is too narrow."""
    if width // 2 < MIN_SIDE:
        raise InputError(f"{width} pixels wide; a picture of two sides must be {2 * MIN_SIDE} or more")
    return width // 2


def check_proportions(images: tuple[int, int], targets: tuple[int, int]) -> None:
    """Refuse two (width, height) whose proportions differ by more than rounding to pixels explains."""
    (width, height), (other_width, other_height) = images, targets
    if abs(width * other_height - other_width * height) > max(width + height, other_width + other_height):
        raise InputError(
            f"a pair of {width}×{height} and {other_width}×{other_height} pixels; its sides need the same proportions"
        )


def to_square(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """Centre crop, alpha over white, grey or RGB, then Lanczos; uint8 [size, size, channels], channels 1 or 3."""
    width, height = image.size
    side = min(width, height)
    if width != height:
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    image = _opaque(image).convert("L" if channels == 1 else "RGB")
    if side != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(size, size, channels)


def _opaque(image: Image.Image) -> Image.Image:
    """An image without alpha and with 8 bits a channel."""
    if image.mode == "F":
        raise InputError("an image of 32-bit floats has no fixed range; save it with 8 or 16 bits, or use a .npy array")
    if image.mode.startswith("I"):  # I;16 and its byte orders, and I, which holds 16 bits in older Pillow
        pixels = np.asarray(image)
        low, high = int(pixels.min()), int(pixels.max())
        if low < 0 or high > 65535:
            raise InputError(f"an image of 32-bit integers from {low} to {high}; 16 bits (0 to 65535) are the most")
        return Image.fromarray(narrow(pixels))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        return white
    return image


def narrow(pixels: np.ndarray) -> np.ndarray:
    """16 bits to 8: x / 257 to the nearest, so that 65535 becomes 255."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
