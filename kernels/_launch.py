"""Launches of Triton kernels at little of the host's time: compiled kernels are looked up, sizes are plain integers."""

from triton import knobs
from triton.runtime import driver
from triton.runtime.jit import JITFunction

_compiled: dict = {}  # key of a launch → device → (compiled kernel, its constants in order)
MOST = 4096  # keys; then it begins anew


def launch(kernel, grid, *args, **constants):
    """kernel[grid](*args, **constants): args: tensors, numbers, None; constants: all else.

    Triton's own call binds and specialises every argument anew. What it specialises by is the key here: dtypes of
    tensors, whether their addresses are divisible by 16, and integers. It does not specialise by floats.
    """
    key = (
        kernel,
        *constants.values(),
        *[(a.dtype, a.data_ptr() % 16) if hasattr(a, "data_ptr") else float if type(a) is float else a for a in args],
    )
    found = _compiled.get(key)
    hooks = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    if found is None or any(getattr(hook, "calls", hook) for hook in hooks):  # a profiler's hooks want to see it
        return _first(key, kernel, grid, args, constants)
    device = driver.active.get_current_device()
    if device not in found:
        return _first(key, kernel, grid, args, constants)
    compiled, rest = found[device]
    x, y, z = (*grid, 1, 1)[:3]
    stream = driver.active.get_current_stream(device)
    compiled.run(x, y, z, stream, compiled.function, compiled.packed_metadata, None, None, None, *args, *rest)


def _first(key, kernel, grid, args, constants):
    """Triton's own call, which compiles; what it made is kept."""
    compiled = kernel[grid](*args, **{"enable_fp_fusion": True, **constants})  # Triton 3.10 has another default
    if compiled is None or not isinstance(kernel, JITFunction):  # recorded, or interpreted
        return
    if len(_compiled) >= MOST:
        _compiled.clear()
    rest = [constants[name] for name in kernel.arg_names[len(args) :]]
    _compiled.setdefault(key, {})[driver.active.get_current_device()] = compiled, rest


def cdiv(a: int, b: int) -> int:
    """⌈a/b⌉; Triton's own, made for kernels too, takes microseconds."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of two that is n or more; 1 for n below 1."""
    return 1 << (n - 1).bit_length() if n > 1 else 1
