"""Weights of published networks from files, and what these see of images [B, C, H, W] in [−1, 1]."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ganfast.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


def rgb(images: Tensor) -> Tensor:
    """[B, 1 or 3, H, W] → [B, 3, H, W]."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"images: got {list(images.shape)}, networks of photographs need [B, 1 or 3, H, W].")
    return images.expand(-1, 3, -1, -1)


def resized(images: Tensor, side: int, mode: str) -> Tensor:
    """The whole image as a square of ``side``, bilinear or bicubic, antialiased where it shrinks; stays in [−1, 1]."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode=mode, align_corners=False, antialias=True).clamp(-1, 1)


def normalised(images: Tensor) -> Tensor:
    """[−1, 1] → [0, 1], less ImageNet's mean, over its standard deviation."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return ((images + 1) / 2 - mean) / std


def read(path: str | Path, flag: str = "--features") -> dict[str, Tensor]:
    """The tensors of a file of weights, by name; nothing in it is run. ``flag`` is the option that named it."""
    said, path = f"{flag} {path}", Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"{said} is not there: give a .safetensors, .npz or .pth file of weights.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, KeyError) as error:
        raise unreadable(said, error) from None
    except Exception as error:  # pickle.UnpicklingError, and whatever else a damaged file raises
        raise unreadable(said, error) from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{said}: is no dictionary of tensors: save the state_dict of the network.")
    return found


def unreadable(said: str, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{said}: no readable file of weights ({reason}): give .safetensors, .npz or .pth.")


def fitting(module: nn.Module, tensors: dict[str, Tensor], name: str, said: str, assign: bool = False) -> None:
    """Load ``tensors`` as fp32; ``InputError`` that begins with ``said`` where they are not those of ``module``."""
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    try:
        module.load_state_dict(tensors, assign=assign)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{said}: does not fit {name} ({reason}): give the published file.") from None
