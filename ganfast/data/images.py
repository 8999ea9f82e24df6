"""One image, whatever its mode and size, to uint8 pixels [height, width, channels]."""

import contextlib
import math
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from ganfast.errors import InputError

MIN_SIDE = 8  # pixels; anything smaller is an icon, a tracking pixel or a mistake
MAX_PIXELS = 250_000_000  # of one image: 750 MB decoded
LARGE = 2**24  # pixels beyond which images are decoded one at a time, and shrunk before they are resized
OVERSAMPLING = 4  # times as many pixels a side as are wanted in the end stay then, so that resizing decides the look
# EXIF's orientation → how the stored pixels are turned
TURNS = dict(zip(range(2, 9), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2))))

_one_large = threading.Semaphore(1)
_limit_lock = threading.Lock()
_limit = {"readers": 0, "before": None}


@dataclass(frozen=True)
class Frame:
    """What pictures are brought to: pixels, channels (1 or 3; of arrays any), and how other proportions fit."""

    height: int
    width: int
    channels: int
    fit: str = "crop"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    def shape_of(self, column: str) -> tuple[int, int, int]:
        """Of a picture in this column: maps have one channel."""
        return (*self.shape[:2], 1) if column == "maps" else self.shape


@contextlib.contextmanager
def pillows_limit():
    """Pillow refuses and warns of large images by a global of its own; here MAX_PIXELS holds while files are read."""
    with _limit_lock:
        _limit["readers"] += 1
        if _limit["readers"] == 1:
            _limit["before"], Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
    try:
        yield
    finally:
        with _limit_lock:
            _limit["readers"] -= 1
            if not _limit["readers"]:
                Image.MAX_IMAGE_PIXELS = _limit["before"]


@contextlib.contextmanager
def naming(title: str):
    """Turn whatever reading an image raises into an InputError that begins with ``title``."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{title}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{title}: not an image in a format that Pillow reads") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{title}: more than the {MAX_PIXELS} pixels that are safe to decode") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, IndexError, ...
        raise InputError(f"{title}: cannot be read ({error or type(error).__name__})") from error


def header(file) -> Image.Image:
    """Open an image without decoding a pixel, and refuse what is too large or too small to be data."""
    image = Image.open(file)
    if image.format == "EPS":
        raise InputError("an EPS file is a program for Ghostscript, which is not run; save it as PNG")
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"an image of {width}×{height} pixels, more than the {MAX_PIXELS} that are safe to decode")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"an image of {width}×{height} pixels; both sides must be {MIN_SIDE} or more")
    return image


def is_grey(image: Image.Image) -> bool:
    """Whether the image's mode has no colour (a palette counts as colour)."""
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")


def upright(file, needed: int | None = None) -> Image.Image:
    """The first frame of an image file, turned as its EXIF says; EXIF that cannot be read is ignored.

    ``needed``: pixels of the shorter side that are wanted in the end, to which a very large picture may be shrunk.
    """
    image = header(file)
    large = image.width * image.height > LARGE
    with _one_large if large else contextlib.nullcontext():
        if large and needed is not None:
            scale = OVERSAMPLING * needed / min(image.size)
            image.draft(None, tuple(math.ceil(side * scale) for side in image.size))  # JPEG: at 1/2, 1/4 or 1/8
        image.load()
        turn = _turn(image)
        if large and needed is not None:
            image = _reduced(image, min(image.size) // (OVERSAMPLING * needed))
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(0x0112))
    except Exception:  # Pillow's parsers of EXIF raise SyntaxError, struct.error, TypeError, ...
        return None


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Means of factor × factor pixels."""
    if factor < 2:
        return image
    return _opaque(image).convert("L" if is_grey(image) else "RGB").reduce(factor)


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


def to_frame(image: Image.Image, frame: Frame) -> np.ndarray:
    """Crop, alpha over white, grey or RGB, then Lanczos and padding: uint8 [height, width, channels]."""
    size = frame.width, frame.height
    if frame.fit == "crop":
        image = _central(image, *size)
    image = _opaque(image).convert("L" if frame.channels == 1 else "RGB")
    inner = _inside(image.size, size) if frame.fit == "pad" else size
    if image.size != inner:
        image = image.resize(inner, Image.Resampling.LANCZOS)
    if inner != size:
        padded = Image.new(image.mode, size, "white")
        padded.paste(image, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        image = padded
    return np.asarray(image).reshape(frame.shape)


def to_map(image: Image.Image, frame: Frame) -> np.ndarray:
    """A picture whose values are classes, cropped or padded (class 0), of the nearest pixels: uint8 [height, width, 1].

    Of a palette they are its indices. InputError where there is more than one channel or a class beyond 255.
    """
    if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
        raise InputError(
            f"a picture of mode {image.mode}; label maps are palette or grey, and their values are classes"
        )
    classes = np.asarray(image)
    if classes.max() > 255 or classes.min() < 0:
        raise InputError(f"classes from {classes.min()} to {classes.max()}; they lie in 0 … 255")
    size, image = (frame.width, frame.height), Image.fromarray(classes.astype(np.uint8))
    if frame.fit == "crop":
        image = _central(image, *size)
    inner = _inside(image.size, size) if frame.fit == "pad" else size
    image = image.resize(inner, Image.Resampling.NEAREST)
    if inner != size:
        padded = Image.new("L", size)
        padded.paste(image, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        image = padded
    return np.asarray(image)[..., None]


def _central(image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest part in the centre with the proportions width : height."""
    wide, high = image.size
    crop_wide = min(wide, max(1, round(high * width / height)))
    crop_high = min(high, max(1, round(wide * height / width)))
    if (crop_wide, crop_high) == (wide, high):
        return image
    left, top = (wide - crop_wide) // 2, (high - crop_high) // 2
    return image.crop((left, top, left + crop_wide, top + crop_high))


def _inside(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) of the proportions of ``size`` in ``room``."""
    scale = min(room[0] / size[0], room[1] / size[1])
    return tuple(min(most, max(1, round(side * scale))) for side, most in zip(size, room))


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
