"""The compiled extension ganfast._C: loaded once, on first use, with the reason in words where it is not there."""

import functools
import importlib
from pathlib import Path

import torch

# The codes of csrc/ops.h.
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

REBUILD = "see why with: pip install -v --no-build-isolation --no-deps -e ."


def build_note() -> str:
    """What the last build of ganfast._C had to say: one line."""
    try:
        return (Path(__file__).parents[1] / "_C.txt").read_text().strip()
    except OSError:
        return "never built in this installation"


@functools.cache
def _load():
    try:
        module = importlib.import_module("ganfast._C")
        if hasattr(module.cpu, "activations"):
            return module, None
        return None, f"ganfast._C was built from older sources than these; {REBUILD}"
    except ModuleNotFoundError as error:
        if error.name != "ganfast._C":
            return None, f"ganfast._C does not load: {error}"
        return None, f"ganfast._C is missing ({build_note()}); {REBUILD}"
    except ImportError as error:  # built for another Python, a missing library, …: its own words
        return None, f"ganfast._C does not load: {error}"


def extension():
    """ganfast._C; raises ImportError with the reason where it does not load."""
    module, reason = _load()
    if module is None:
        raise ImportError(reason)
    return module


def activations() -> list:
    """The names of compiled code's activations, in the order of their numbers: those it was built with."""
    return extension().cpu.activations.split()


def cpu_ready():
    """True, or why the extension's CPU half cannot be used."""
    module, reason = _load()
    return True if module is not None else reason


def has_cuda() -> bool:
    """Whether the extension loads and was built with its CUDA half."""
    return hasattr(_load()[0], "cuda")


@functools.cache
def cuda_ready(index: int = 0):
    """True, or why the extension's CUDA half cannot be used on CUDA device `index`."""
    module, reason = _load()
    if module is None:
        return reason
    if not has_cuda():
        return f"ganfast._C has no CUDA half ({build_note()}); {REBUILD}"
    return module.cuda.unusable(index) or True
