"""Complete checkpoints: written whole or not at all, and read without executing anything in them."""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from ganfast.errors import InputError
from ganfast.files import flush
from ganfast.recipes import trained as recipes
from ganfast.recipes.trained import Trained

FORMAT = "ganfast-checkpoint-3"
MANIFEST = "checkpoint.json"


def save(directory: Path, state: dict, trained: Trained, about: dict, keep: int) -> None:
    """Write ``directory`` beside its older siblings and drop all but the newest ``keep``.

    ``state`` is a RunState's ``state_dict()``. Everything goes to a temporary directory, is flushed to the disk and
    then renamed, so that a checkpoint that bears its name is complete. The
    manifest holds a SHA-256 of each file. Raises
    ``OSError`` where that cannot be done; what was saved before stays.
    """
    try:
        write(directory, state, trained, about)
    except OSError as error:
        with contextlib.suppress(OSError):
            clean(directory.parent)  # room for whoever needs it
        raise OSError(error.errno, error.strerror, str(directory)) from error
    for old in all_in(directory.parent)[:-keep]:
        remove(old)


def write(directory: Path, state: dict, trained: Trained, about: dict) -> None:
    """A network a file, generator.safetensors with the averages, and state.pt with the rest."""
    clean(directory.parent)
    partial = directory.parent / f".partial-{directory.name}"
    partial.mkdir()
    for name, tensors in state["networks"].items():
        dense = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        (partial / f"{name}.safetensors").write_bytes(serialise(dense))
    recipes.save(trained, partial / recipes.FILE, step=str(state["step"]))
    content = io.BytesIO()  # on a full disk torch.save to a file fails with an error that does not say so
    torch.save({name: value for name, value in state.items() if name not in ("networks", "averages")}, content)
    (partial / "state.pt").write_bytes(content.getbuffer())
    digests = {file.name: sha256(file) for file in sorted(partial.iterdir())}
    manifest = {"format": FORMAT, **about, "files": digests}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for file in [*partial.iterdir(), partial]:
        flush(file)
    if directory.exists():
        set_aside(directory, "replaced")
    os.rename(partial, directory)
    flush(directory.parent)


def read(directory: Path, device: torch.device) -> tuple[dict, dict]:
    """(manifest, state) of a checkpoint; ``InputError`` names what is missing or damaged."""
    manifest = read_manifest(directory)
    for name, digest in manifest["files"].items():
        file = directory / name
        try:
            what = "damaged" if sha256(file) != digest else ""
        except FileNotFoundError:
            what = "missing"
        except OSError as error:
            raise damaged(directory, error) from None
        if what:
            raise InputError(f"{file} is {what}: go on from another checkpoint (--resume CHECKPOINT).")
    try:
        state = torch.load(directory / "state.pt", map_location=device, weights_only=True)
        own = [name for name in manifest["files"] if name not in ("state.pt", recipes.FILE)]
        state["networks"] = {Path(name).stem: load_file(directory / name) for name in own}
        state["averages"] = {}
        for key, value in load_file(directory / recipes.FILE).items():
            name, _, rest = key.partition(".")
            state["averages"].setdefault(name, {})[rest] = value
    except UnpicklingError:  # weights_only refuses a pickle that would run code
        raise damaged(directory, "state.pt holds something other than numbers, and is not loaded") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError) as error:
        raise damaged(directory, error) from None
    return manifest, state


def read_manifest(directory: Path) -> dict:
    file = directory / MANIFEST
    try:
        manifest = json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{directory} is not a checkpoint, it has no {MANIFEST}: give a run or one of its checkpoints."
        ) from None
    except (OSError, ValueError) as error:
        raise damaged(directory, error) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{directory} is not a checkpoint of this version of ganfast: give one that it wrote.")
    files = manifest.get("files")
    if not isinstance(files, dict) or any(Path(name).name != name for name in files) or "state.pt" not in files:
        raise damaged(directory, "its list of files is not one")
    return manifest


def damaged(directory: Path, reason: object) -> InputError:
    first_line = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
    return InputError(f"{directory} is damaged ({first_line}): go on from another checkpoint (--resume CHECKPOINT).")


def name(step: int) -> str:
    return f"checkpoint-{step:06d}"


def all_in(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in run.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def clean(run: Path) -> None:
    """Remove what a killed process left half written or half deleted."""
    for left in run.glob(".partial-*"):
        shutil.rmtree(left)
    for left in run.glob(".*.partial"):
        left.unlink()


def set_aside(directory: Path, why: str) -> None:
    """Rename a checkpoint so that it is none any more, and stays."""
    for number in range(1000):
        place = directory.with_name(f"{why}-{directory.name}" + (f"-{number}" if number else ""))
        if not place.exists():
            os.rename(directory, place)
            return
    raise FileExistsError(17, "there are a thousand of them", str(place))


def remove(directory: Path) -> None:
    """Delete a checkpoint so that no half of it ever bears its name."""
    doomed = directory.parent / f".partial-{directory.name}-removed"
    os.rename(directory, doomed)
    shutil.rmtree(doomed)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def rng_state() -> dict:
    """The state of every global random generator, as tensors, numbers and strings."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002, the global one is what others use
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": (version, list(numbers), gauss),
        "numpy": (name, keys.tolist(), position, has_gauss, cached),
    }


def set_rng_state(state: dict) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))  # noqa: NPY002
