"""The host's time: what Python, torch and the launches cost a caller who does not wait for the device.

On a GPU ("host") it is the time in which calls return. Without one ("stub") launches are stubs: CPU tensors are taken
for a GPU's, each kernel of ours takes LAUNCH, everything in Python is real, and the CPU's time of the thread counts.
torch's operators run as they are, on few numbers, and LAUNCH is added for each; its convolutions are its own native
ones, which cost a call about what cuDNN's do, and not oneDNN's, which take 200 µs at any size.
"""

import contextlib
import functools
import time
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LAUNCH = 2e-6  # seconds of a launch: CUDA's share, beyond what Python and torch's dispatcher take


def _wait(*args, **kwargs):
    end = time.perf_counter() + LAUNCH
    while time.perf_counter() < end:
        pass


class _Kernel:
    """Instead of Triton's compiled kernel; `of` is its JITFunction."""

    function, packed_metadata = 1, (4, 1, 0, 1, 1, 1)

    def __init__(self, of):
        self.of = of

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
    """Instead of the extension's CUDA half: its launches are stubs, and few numbers take no workspace."""

    def __getattr__(self, name):
        if name.endswith("_workspace"):
            return lambda *args: 0
        return _wait


class _Extension:
    cuda = _Cuda()


def _compiled(kernel, key, signature, device, constexprs, options, attrs, warmup):
    kernel.device_caches[device][0][key] = made = _Kernel(kernel)
    return made


def _choice(measure, candidates, device, by_host=False):
    """Of kernels and tiles the first, for what they compute is not real; of ways in Python the fastest."""
    from ganfast.ops import _tuning

    if "autograd" in candidates:
        with mock.patch.object(_tuning, "REPEATS", 50):  # on a GPU there are 5 times 10 calls
            return measure(candidates, device, by_host)
    name = next((n for n in ("fused", "triton") if n in candidates), next(iter(candidates)))
    return {"choice": name, "microseconds": dict.fromkeys(candidates, 1.0)}


@contextlib.contextmanager
def stubbed():
    """Inside, CPU tensors are a GPU's and launches are stubs."""
    from ganfast.kernels import _launch
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from ganfast.ops import _backends, _extension, _registry, _tuning

    def available(backend, device):
        return backend in ("cuda", "triton")

    patches = [
        mock.patch.object(driver, "_active", _Driver()),
        mock.patch.object(JITFunction, "_do_compile", _compiled),
        mock.patch.dict(_launch._compiled, clear=True),
        mock.patch.object(_backends, "DEVICES", {"cpu": "none", "cuda": "cpu", "triton": "cpu"}),
        mock.patch.object(_backends, "available", available),
        mock.patch.object(_extension, "_load", lambda: (_Extension, None)),
        mock.patch.object(_backends, "current_device", lambda: None),
        mock.patch.object(_backends, "current_stream", lambda index: 0),
        mock.patch.object(_tuning, "_known", {}),
        mock.patch.object(_tuning, "_read", dict),
        mock.patch.object(_tuning, "_keep", lambda *row: None),
        mock.patch.object(_tuning, "measure", functools.partial(_choice, _tuning.measure)),
    ]
    mkldnn, threads = torch.backends.mkldnn.enabled, torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        torch.backends.mkldnn.enabled = False
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # results of stubs are what lay in memory; the flag is of this thread alone
        _forget(_registry.OPS)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            torch.set_num_threads(threads)
            torch.backends.mkldnn.enabled = mkldnn
            _forget(_registry.OPS)


def _forget(ops):
    """What operators have found out of this machine."""
    from ganfast.nn import fused_group
    from ganfast.penalty import plan

    fused_group._BY_TORCH.clear()
    plan._PLANS.clear()
    for op in ops.values():
        op._ready_on.clear()
        op._plans.clear()


# --- measuring --------------------------------------------------------------------------------------------------------


class _Operators(TorchDispatchMode):
    """Counts torch's own operators that launch a kernel on a GPU: neither views nor allocations."""

    FREE = ("empty", "new_empty", "detach", "alias", "_local_scalar_dense", "lift", "set_", "resize")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        if name.startswith("aten::") and not function.is_view:
            self.count += not name.removeprefix("aten::").startswith(self.FREE)
        return function(*args, **(kwargs or {}))


def operators(step) -> int:
    """How many kernels torch's own operators launch in step(), at least."""
    with _Operators() as mode:
        step()
    return mode.count


def seconds(step, place: str, repeat: int, launched: int) -> float:
    """The host's time of one of `repeat` calls. "stub": CPU time, and `launched` launches of torch's own operators."""
    if place == "stub":
        start = time.thread_time()
        for _ in range(repeat):
            step()
        return (time.thread_time() - start) / repeat + launched * LAUNCH
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeat):
        step()
    taken = time.perf_counter() - start
    torch.cuda.synchronize()
    return taken / repeat
