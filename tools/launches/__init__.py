"""What is launched for each operator: read by the kernel gate (tools/gate.py) and by the memory checks on a GPU.

``launches/<op>.py`` declares, as plain data,

    calls(t, *sizes)   rows (name of the Op, its arguments), made of tensors t(*shape, dtype=…), for one `sizes`
    SIZES              sizes of the launches to compile, so that each configuration that size chooses is there
    AWKWARD            small sizes for the memory checks: 1, odd, just past a tile
    ELEMENT            pattern of "kernel configuration" → an element of the main loop: a number n (what one read of n
                       tensors brings), an instruction (one of them an element, "MUFU.EX2"), or the names that it
                       has on different chips, or None: no main loop
    TUNE               may be left out: constant of kernels/<op>.py → values that bench/tune.py tries
    problems(t)        may be left out: rows as of calls, each of one problem whose configuration kernels/<op>.py looks
                       up in BEST, and candidates(problem) → the configurations that bench/tune.py tries
    NARROW             may be left out: pattern → why that one must load less than 4 bytes at a time

The launchers themselves run, on tensors without storage; kernels are recorded instead of launched: what is compiled for
the report is what a user's call launches.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from unittest import mock

import torch


@dataclass(frozen=True)
class Launch:
    """One launch of a Triton kernel, as its compiler sees it."""

    kernel: object
    signature: tuple  # (parameter, type) of what is not constant
    constants: tuple  # (parameter, value)
    aligned: tuple  # parameters known to be divisible by 16
    options: tuple  # (option, value): num_warps, …

    @property
    def name(self) -> str:
        return self.kernel.__name__

    @property
    def dtype(self) -> str:
        """Of its tensors: the half type where there is one."""
        types = {kind.strip("*") for _, kind in self.signature if kind.startswith("*")}
        return next((half for half in ("fp16", "bf16") if half in types), "fp32")

    def describe(self) -> str:
        words = [f"{k}={v}" for k, v in self.constants] + [f"{k.removeprefix('num_')}={v}" for k, v in self.options]
        types = dict(self.signature)
        return " ".join(words + [f"{name}%16" for name in self.aligned if not types[name].startswith("*")])


def declared() -> dict:
    """Operator file → its declaration."""
    return {m.name: importlib.import_module(f"launches.{m.name}") for m in pkgutil.iter_modules(__path__)}


TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64", torch.int8: "i8",
    torch.uint8: "u8", torch.int32: "i32", torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip


def _type_of(value):
    """(type, divisible by 16) of an argument; (None, False): Triton makes it a constant."""
    if isinstance(value, torch.Tensor):
        return "*" + TYPES[value.dtype], value.storage_offset() * value.element_size() % 16 == 0
    if isinstance(value, bool):
        return "u1", False
    if isinstance(value, float):
        return "fp32", False
    if value is None or value == 1:
        return None, False
    return "i32" if -(2**31) <= value < 2**31 else "i64", value % 16 == 0


def _launch_of(kernel, args, kwargs) -> Launch:
    """A call as Triton specialises it (triton/runtime/jit.py): 1 and None are constants, divisibility by 16 is told."""
    options = {k: v for k, v in kwargs.items() if k not in kernel.arg_names}
    bound = kernel.signature.bind(*args, **{k: v for k, v in kwargs.items() if k in kernel.arg_names})
    bound.apply_defaults()
    signature, constants, aligned = {}, {}, []
    for parameter in kernel.params:
        name, value = parameter.name, bound.arguments[parameter.name]
        kind, divisible = (None, False) if parameter.is_constexpr else _type_of(value)
        if kind is None and not (value == 1 and parameter.do_not_specialize and not parameter.is_constexpr):
            constants[name] = value
            continue
        signature[name] = kind or "i32"
        if divisible and not parameter.do_not_specialize and not parameter.do_not_specialize_on_alignment:
            aligned.append(name)
    return Launch(kernel, *(tuple(d.items()) for d in (signature, constants)), tuple(aligned), tuple(options.items()))


def record(call) -> list[Launch]:
    """The launches of Triton kernels in call(), of which none takes place."""
    from triton.runtime.jit import JITFunction

    found = []

    def run(kernel, *args, grid, warmup, **kwargs):
        found.append(_launch_of(kernel, args, kwargs))

    with mock.patch.object(JITFunction, "run", run):
        call()
    return found


def triton_launches(declaration, dtype: torch.dtype) -> list[Launch]:
    """The distinct launches of a declared operator for tensors of one dtype."""
    from ganfast.ops import use_backend
    from ganfast.ops._registry import OPS

    def tensor(*shape, dtype=dtype):
        return torch.empty(shape, dtype=dtype, device="meta")

    found: dict[Launch, None] = {}
    for sizes in declaration.SIZES:
        for name, args in declaration.calls(tensor, *sizes):
            for backend in OPS[name].backends:
                if backend.name == "triton":
                    with use_backend("triton"):  # not the vendor's convolutions
                        found |= dict.fromkeys(record(lambda: backend.run(*args)))  # noqa: B023  called at once
    return list(found)
