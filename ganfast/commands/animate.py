"""``ganfast animate``: the pictures that a run has left, one after another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ganfast.errors import InputError
from ganfast.files import replacing
from ganfast.report.facts import pictures
from ganfast.report.images import spread

SIDE = 800  # pixels at most
CAPTION = 16  # pixels below a picture
LAST = 1500  # milliseconds that the last one is shown


@dataclass(kw_only=True)
class Animate:
    """A GIF of a run's samples, from its first steps to its last: fakes-STEP.png with the number of the step."""

    run_directory: Annotated[Path, tyro.conf.arg(metavar="RUN"), tyro.conf.Positional]
    """a run directory, as runs/00000-dcgan-digits; --sample-every of training says how often it leaves a picture"""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE.gif", aliases=["-o"])] = None
    """the file to write; RUN/animation.gif by default"""
    fps: float = 8.0
    """pictures in a second, from 0.1 to 50"""
    frames: int = 200
    """pictures at most; of more some are left out evenly, never the first and the last"""

    def __post_init__(self):
        if not 0.1 <= self.fps <= 50:
            raise InputError(f"--fps must be from 0.1 to 50, got {self.fps:g}.")
        if self.frames < 2:
            raise InputError(f"--frames must be at least 2, got {self.frames}.")

    def run(self) -> None:
        run = self.run_directory
        found = pictures(run)
        if len(found) < 2:
            what = f"has {len(found)} fakes-STEP.png" if run.is_dir() else "is not a directory"
            raise InputError(f"{run} {what}: give a run that has left two or more (--sample-every of training).")
        taken = spread(found, self.frames)
        file = self.output or run / "animation.gif"
        if not file.parent.is_dir():
            raise InputError(f"{file.parent} is not a directory: give another file (--output).")
        made = frames(taken)
        first, times = next(made), [round(1000 / self.fps)] * (len(taken) - 1) + [LAST]
        with replacing(file) as partial:
            first.save(partial, "gif", save_all=True, append_images=made, duration=times, loop=0)
        of = "" if len(taken) == len(found) else f" of {len(found)}"
        print(f"wrote {file}: {len(taken)}{of} pictures, steps {taken[0][0]} to {taken[-1][0]}")


def frames(taken: list[tuple[int, Path]]) -> Iterator:
    """Pillow images of one size, at most SIDE wide and SIDE + CAPTION high, with the step below each.

    One after another: all of them would take much memory.
    """
    from PIL import Image, ImageDraw

    sizes, colours = zip(*[(picture.size, picture.mode != "L") for _, path in taken for picture in [opened(path)]])
    width, height = (max(sides) for sides in zip(*sizes))
    for step, path in taken:  # a stage of smaller images is enlarged to the size of the largest
        picture = opened(path).resize((width, height), Image.Resampling.NEAREST)
        frame = Image.new("RGB" if any(colours) else "L", (width, height + CAPTION), "white")
        frame.paste(picture)
        ImageDraw.Draw(frame).text((3, height + 2), f"step {step}", fill="black")
        yield frame


def opened(path: Path):
    """The picture, no larger than SIDE × SIDE; ``InputError`` where it cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            picture = file.convert("L" if file.mode == "L" else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be decoded ({error}): remove it.") from None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture
