"""Pictures of a run as data URIs of bounded size."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

GRIDS = 16  # pictures over time at most
LARGE, SMALL = 1056, 676  # pixels a side: the newest and the real ones; those over time: ten rows of 32 at 2×
ENOUGH = 64_000  # bytes up to which a PNG, which loses nothing, is taken


@dataclass(frozen=True)
class Embedded:
    uri: str
    width: int
    height: int


def embed(file: Path, largest: int) -> Embedded | None:
    """``file`` as PNG or, where that is large, JPEG; None where it cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            picture = opened.convert("L" if opened.mode == "L" else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return embedded(picture)


def embedded(picture) -> Embedded:
    """A Pillow image in grey or RGB."""
    png = encode(picture, "png", optimize=True)
    if len(png) <= ENOUGH:
        return Embedded(uri("png", png), *picture.size)
    return Embedded(uri("jpeg", encode(picture, "jpeg", quality=85, optimize=True)), *picture.size)


def encode(picture, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def uri(form: str, content: bytes) -> str:
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def spread(items: list, most: int) -> list:
    """At most ``most`` of ``items``, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]
