"""The host's time: what Python, torch and the launches cost a caller who does not wait for the device.

On a GPU it is the time in which calls return. Without one, launches are stubs: CPU tensors are taken for a GPU's, each
launch of a kernel waits as long as a real one takes (LAUNCH), and everything in Python is real. torch's side runs as it
is, small enough for its arithmetic not to matter; its convolutions then are its own native ones, which cost a call no
more than cuDNN's do, and not oneDNN's, which take 200 µs at any size.
"""

import contextlib
import time
from unittest import mock

import torch

LAUNCH = 2e-6  # seconds: a launch, beyond what a kernel of torch's takes on a few numbers on a CPU


def _wait(*args, **kwargs):
    end = time.perf_counter() + LAUNCH
    while time.perf_counter() < end:
        pass


class _Kernel:
    """Instead of Triton's compiled kernel."""

    function, packed_metadata = 1, (4, 1, 0, 1, 1, 1)

    def launch_metadata(self, grid, stream, *args):
        return None

    run = staticmethod(_wait)


class _Driver:
    """Instead of Triton's driver: one H100."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_device_capability(self, device=0):
        return (9, 0)

    def get_active_torch_device(self):
        return torch.device("cpu")


class _Cuda:
    """Instead of the extension's CUDA half: its launches are stubs, sizes of workspaces are its own."""

    def __getattr__(self, name):
        if name.endswith("_workspace"):
            return lambda *args: 64
        return _wait


class _Extension:
    cuda = _Cuda()


class _Stream:
    cuda_stream = 0


def _compiled(kernel, key, signature, device, constexprs, options, attrs, warmup):
    kernel.device_caches[device][0][key] = made = _Kernel()
    return made


def _first_kernel(candidates, device, by_host=False):
    """The choice where large tensors have a kernel of ours run."""
    name = next((n for n in ("fused", "triton") if n in candidates), next(iter(candidates)))
    return {"choice": name, "microseconds": dict.fromkeys(candidates, 1.0)}


@contextlib.contextmanager
def stubbed(large: bool = False):
    """Inside, CPU tensors are a GPU's and launches are stubs; large: as if the tensors were, so that kernels run."""
    from ganfast.kernels import _launch
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from ganfast import functional
    from ganfast.ops import _extension, _registry, _tuning

    def available(backend, device):
        return backend in ("cuda", "triton")

    mkldnn = torch.backends.mkldnn.enabled
    patches = [
        mock.patch.object(driver, "_active", _Driver()),
        mock.patch.object(JITFunction, "_do_compile", _compiled),
        mock.patch.dict(_launch._compiled, clear=True),
        mock.patch.object(_registry, "DEVICES", {"cpu": "none", "cuda": "cpu", "triton": "cpu"}),
        mock.patch.object(_registry, "available", available),
        mock.patch.object(_extension, "_load", lambda: (_Extension, None)),
        mock.patch.object(torch.cuda, "current_stream", lambda device=None: _Stream),
        mock.patch.object(_tuning, "_known", {}),
        mock.patch.object(_tuning, "_read", dict),
        mock.patch.object(_tuning, "_keep", lambda *row: None),
    ]
    if large:
        patches += [mock.patch.object(functional, "SMALL", -1), mock.patch.object(_tuning, "measure", _first_kernel)]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        torch.backends.mkldnn.enabled = False
        _forget(_registry.OPS)
        try:
            yield
        finally:
            torch.backends.mkldnn.enabled = mkldnn
            _forget(_registry.OPS)


def _forget(ops):
    """What operators have found out of this machine."""
    from ganfast.nn import group

    group._BY_TORCH.clear()
    for op in ops.values():
        op._ready_on.clear()
        op._plans.clear()
