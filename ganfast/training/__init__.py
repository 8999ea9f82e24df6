"""The training loop and what it leaves on disk."""

from ganfast.training.options import TrainOptions
from ganfast.training.trainer import Trainer

__all__ = ["TrainOptions", "Trainer"]
