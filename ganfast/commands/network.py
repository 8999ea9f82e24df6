"""The generator that --network names."""

from pathlib import Path

from torch import device, nn

from ganfast import models
from ganfast.training import TrainOptions


def load_generator(path: Path, name: str) -> tuple[nn.Module, device]:
    """(the generator at ``path``, the device called ``name`` that it is on)."""
    place = TrainOptions(data="", device=name).torch_device()
    return models.load(path, place), place
