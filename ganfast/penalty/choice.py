"""The sweeps or torch's double backward, whichever is faster: measured once for each critic and shape of its input.

A device does less work in the sweeps. In an eager loop on a GPU the host counts, too, and those of a curved critic
are many calls from Python. In a CUDA graph, under torch.compile, on a CPU and for a piecewise-linear critic they win.
"""

import contextlib

import torch
from torch import Tensor, nn

from ganfast.ops import _tuning
from ganfast.ops._registry import host_counts
from ganfast.penalty.engine import autocast_dtype
from ganfast.penalty.program import Program


def prefers_autograd(critic: nn.Module, program: Program, name: str, x: Tensor, sweeps, autograd) -> bool:
    """Whether ``autograd()`` is faster than ``sweeps()``; each makes the gradients and leaves ``.grad`` alone."""
    if program.flat or torch.compiler.is_compiling() or not host_counts(x.device):
        return False
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return False  # every rank is to do the same
    if torch.get_deterministic_debug_mode() == 2:  # of use_deterministic_algorithms(True)
        return False
    key = name, x.shape, x.dtype, autocast_dtype(x.device), critic.training, torch.is_grad_enabled()
    if key not in program.measured:
        if _tuning.not_now(x.device):
            return False
        with _undone(critic, x.device):
            row = _tuning.measure({"sweeps": sweeps, "autograd": autograd}, x.device, by_host=True)
        if row.get("memory"):  # one of them wanted more than there was now
            return row["choice"] == "autograd"
        program.measured[key] = row["choice"] == "autograd"
    return program.measured[key]


@contextlib.contextmanager
def _undone(critic: nn.Module, device: torch.device):
    """What calls of the critic change, buffers and random states, is afterwards as it was."""
    buffers = [(b, b.clone()) for b in critic.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
