"""What scores keep on the disk between calls: tensors and text in safetensors files, which run no code when read."""

import hashlib
import json
import warnings

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ganfast.files import cache_folder, replacing


def key(*parts) -> str:
    """16 hexadecimal digits for what a file depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def digest(tensors: dict[str, Tensor]) -> str:
    """16 hexadecimal digits for the names and values of tensors."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def read(name: str) -> tuple[dict[str, Tensor], dict] | None:
    """(tensors, what was said of them) of the file of that name; None where it is not there or damaged."""
    try:
        with safe_open(cache_folder() / "scores" / f"{name}.safetensors", framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118, not a dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def write(name: str, tensors: dict[str, Tensor], about: dict) -> None:
    """Keep them; a folder that cannot be written costs time, and is told of."""
    file = cache_folder() / "scores" / f"{name}.safetensors"
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, durable=False) as partial:
            save_file(tensors, partial, {"about": json.dumps(about)})
    except (OSError, SafetensorError) as error:
        warnings.warn(f"{file} cannot be written ({error}): it is made again next time.", stacklevel=2)
