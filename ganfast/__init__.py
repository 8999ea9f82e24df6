"""ganfast: train GANs fast and right in PyTorch.

Submodules load on first use, so that ``import ganfast`` costs little more than ``import torch``.
"""

import importlib

from ganfast.fuse import fuse  # now, not on first use: the function, never the module of its name

__version__ = "0.1.0"

_SUBMODULES = {
    "data", "functional", "graphs", "metrics", "models", "nn", "objectives",
    "ops", "penalty", "recipes", "reference", "training",
}  # fmt: skip
_NAMES = {
    "InputError": "errors", "capture": "graphs", "gradient_penalty": "penalty", "Trainer": "training",
    "load": "recipes",
}  # fmt: skip

__all__ = ["__version__", "fuse", *sorted(_SUBMODULES), *sorted(_NAMES)]


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"ganfast.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"ganfast.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'ganfast' has no attribute {name!r}")


def __dir__():
    return __all__
