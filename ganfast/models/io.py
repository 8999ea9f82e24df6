"""A generator on disk: one safetensors file whose metadata says how to build the module. Loading runs no code."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from ganfast.errors import InputError
from ganfast.models import dcgan, mlp, resnet

FORMAT = "ganfast-generator-1"
GENERATORS = {"dcgan": dcgan.Generator, "mlp": mlp.Generator, "resnet": resnet.Generator}


def describe(generator: torch.nn.Module) -> dict[str, str]:
    """What a file says of how to build ``generator``; ``InputError`` where it could not be built again from that."""
    kind = type(generator)
    name = next((name for name, cls in GENERATORS.items() if cls is kind), None)
    if name is None:
        raise InputError(
            f"generator {kind.__name__} is not registered, so it could not be loaded again: add it by name, "
            f"ganfast.models.GENERATORS[{kind.__name__.lower()!r}] = {kind.__name__}; "
            f"there are {', '.join(GENERATORS)}."
        )
    config = getattr(generator, "config", None)
    try:
        text = json.dumps(config)
    except (TypeError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"generator {kind.__name__} needs an attribute config, a dict of its arguments for JSON.")
    if not isinstance(getattr(generator, "latent_dim", None), int):
        raise InputError(f"generator {kind.__name__} needs an attribute latent_dim, the numbers in a latent vector.")
    return {"format": FORMAT, "model": name, "config": text}


def save(generator: torch.nn.Module, path: str | os.PathLike, **about: str) -> None:
    """Write ``generator`` to ``path`` with its class, its arguments and whatever ``about`` says of its origin.

    ``InputError`` where its class is not one of ``GENERATORS``, or it has no ``config``.
    """
    metadata = {**describe(generator), **about}
    tensors = {key: value.detach().cpu().contiguous() for key, value in generator.state_dict().items()}
    Path(path).write_bytes(serialise(tensors, metadata))


def load(path: str | os.PathLike, device: str | torch.device = "cpu") -> torch.nn.Module:
    """The generator at ``path`` in evaluation mode: z [B, latent_dim] → samples [B, ...].

    ``path`` is a ``generator.safetensors``, or a run directory or checkpoint that holds one (a run directory's
    averaged generator). The file is read as numbers and JSON, never unpickled. Raises ``InputError`` where it is
    missing, damaged or of another kind; its ``about`` attribute is the file's metadata.
    """
    file = find(Path(path))
    try:
        with safe_open(file, framework="pt") as archive:
            metadata = archive.metadata() or {}
            tensors = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged or no safetensors file ({error}): give another file.") from None
    if metadata.get("format") != FORMAT or metadata.get("model") not in GENERATORS:
        raise InputError(f"{file} holds no ganfast generator: give a run directory or its generator.safetensors.")
    try:
        config = json.loads(metadata["config"])
        generator = GENERATORS[metadata["model"]](**config)
        generator.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file} does not fit the generator it names ({reason}): give another file.") from None
    generator.about = metadata
    return generator.to(device).eval()


def find(path: Path) -> Path:
    """The generator's file for what a person points at."""
    if path.is_dir():
        for name in ("generator.safetensors", "G_ema.safetensors"):
            if (path / name).is_file():
                return path / name
        raise InputError(f"{path} holds no generator.safetensors: give a run directory that has saved one.")
    if not path.is_file():
        raise InputError(f"{path} is not there: give a generator.safetensors or a run directory (--network).")
    return path
