"""The folder that ``ganfast generate`` and commands like it write to: samples alone, and other files beside them."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from ganfast.errors import InputError

SAMPLES = "samples"  # the folder with a picture for each sample, and nothing else
FILES = (
    "grid.png", "samples.npz", "points.npy", "points.png", "interpolation.png", "interpolation.gif",
    "interpolation-grid.png", "arithmetic.png", "strip.png", "projection.png", "latents.npz", "directions.png",
    "directions.safetensors",
)  # fmt: skip
RECORD = ".generated"  # the names of all files that were written, as JSON, one a line


class Outputs:
    """``outdir`` while a call writes to it; closed by ``with``.

    Args:
        names: what the call is about to write, of FILES and SAMPLES. InputError where one is there already.
        overwrite: first remove what earlier calls have written and recorded, and nothing else.
    """

    def __init__(self, outdir: Path, names: Iterable[str], overwrite: bool):
        self.outdir, self.record = outdir, outdir / RECORD
        earlier = recorded(self.record) if overwrite else {}
        self.refuse_present(names, earlier, overwrite)
        try:
            outdir.mkdir(parents=True, exist_ok=True)
            self.remove(earlier)
            if SAMPLES in names:
                (outdir / SAMPLES).mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{outdir} cannot be used ({error.strerror}): give another --outdir.") from None
        self.lines = open(self.record, "a", buffering=1, encoding="utf-8")  # noqa: SIM115, closed in __exit__

    def refuse_present(self, names: Iterable[str], earlier: dict[str, None], overwrite: bool) -> None:
        """``InputError`` where a file would be replaced, or lie among samples, that is not one of the ``earlier``."""
        for name in names:
            path = self.outdir / name
            inside = (f"{name}/{each.name}" for each in path.glob("[!.]*"))
            for found in inside if name == SAMPLES else [name] * path.exists():
                if found in earlier:
                    continue
                raise InputError(
                    f"{self.outdir / found} was not written by ganfast, which removes its own files alone: "
                    "name a new --outdir."
                    if overwrite
                    else f"{self.outdir / found} is there already: name a new --outdir, or give --overwrite, which "
                    "removes what ganfast has written there and nothing else."
                )

    def remove(self, earlier: dict[str, None]) -> None:
        """Remove files of earlier calls, and last what says which they are."""
        for name in earlier:
            (self.outdir / name).unlink(missing_ok=True)
        if earlier:
            with contextlib.suppress(OSError):  # something else is in it
                (self.outdir / SAMPLES).rmdir()
            self.record.unlink()

    def path(self, name: str) -> Path:
        """Where to write the file of that name; recorded before it is there, so that no kill leaves an unknown one."""
        self.lines.write(json.dumps(name) + "\n")
        return self.outdir / name

    def sample(self, name: str) -> Path:
        """Where to write the picture of a sample."""
        return self.path(f"{SAMPLES}/{name}")

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(self, *_) -> None:
        self.lines.close()


def recorded(record: Path) -> dict[str, None]:
    """The names in a record, as keys; what is no name of a file of ours is left out."""
    names = {}
    for line in record.read_text(encoding="utf-8").splitlines() if record.is_file() else []:
        try:
            name = json.loads(line)
        except ValueError:  # cut off
            continue
        folder, slash, file = str(name).rpartition("/")
        if name in FILES or (slash and folder == SAMPLES and file not in ("", ".", "..")):
            names[name] = None
    return names


def refuse_as_data(source: str | None, flag: str) -> None:
    """``InputError`` where ``source`` is such a folder: its grids would be taken for samples."""
    if source and (Path(source).expanduser() / RECORD).is_file():
        raise InputError(
            f"{flag} {source} was written by ganfast and holds grids beside the samples: give {Path(source) / SAMPLES}."
        )
