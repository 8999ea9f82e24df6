"""Backends of operators, and the one way in which an operator's arguments become those of its kernels.

An operator's file states facts (:func:`kernels`). They are evaluated once for each signature, on meta tensors: whether
arguments must be copied into another layout, the layouts of results and workspace, and every number that a kernel
takes. A call then allocates, fills in the tensors or their pointers, and launches on the current stream.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, empty_strided, get_num_threads

from ganfast.ops import _extension
from ganfast.ops._private import current_device, current_stream

NAMES = ("reference", "cpu", "cuda", "triton")
DEVICES = {"cpu": "cpu", "cuda": "cuda", "triton": "cuda"}  # the type of device that a backend runs on


@functools.cache
def available(backend: str, device: torch.device):
    """True, or why this machine cannot run `backend` on `device`."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if backend == "cpu":
        return _extension.cpu_ready()
    if backend == "cuda":
        return _extension.cuda_ready(device.index or 0)
    if backend == "triton":
        try:
            import triton  # noqa: F401
        except ImportError as error:
            return f"triton does not load: {error} (pip install 'ganfast[triton]')"
    return True


@dataclass(frozen=True)
class Backend:
    """One implementation: ``run`` takes the operator's arguments, ``supports`` answers True or a reason in words.

    What ``supports`` answers depends on the arguments' shapes, strides, dtypes and numbers alone, and so does what
    ``bind(*args)`` returns: a function that does what ``run`` does, of any arguments with the signature of these.

    ``measured``: the reference may be faster (a convolution is the vendor's there). Both are timed once for each shape
    (ops/_tuning.py), and the faster runs.
    """

    name: str  # "cpu", "cuda" (both the compiled extension) or "triton"
    run: Callable
    supports: Callable
    measured: bool | Callable = False
    bind: Callable | None = None

    @property
    def device(self) -> str:
        return DEVICES[self.name]

    def bound(self, args) -> Callable:
        return self.run if self.bind is None else self.bind(*args)


# --- launches ---------------------------------------------------------------------------------------------------------

_HERE = contextlib.nullcontext()


def guard(device: torch.device):
    """A context in which `device` is CUDA's current one; costs next to nothing where it is already."""
    index = device.index
    if index is None or device.type != "cuda" or index == current_device():  # None: a CPU's
        return _HERE
    return torch.cuda.device(index)


def on_stream(device: torch.device, function: Callable, pattern: list, places, tensors: list) -> None:
    """function(*numbers, stream): a launch on the current stream of `device`, under its guard."""
    index = device.index
    numbers = _numbers(pattern, places, tensors)
    if index == current_device():  # nearly always: no context to enter
        function(*numbers, current_stream(index))
    else:
        with torch.cuda.device(index):
            function(*numbers, current_stream(index))


def _numbers(pattern: list, places, tensors: list) -> list:
    """The pattern with pointers in the places of the tensors, which the caller keeps until the launch has returned."""
    numbers = pattern.copy()
    for place, source in places:
        numbers[place] = tensors[source].data_ptr()
    return numbers


# --- layouts ----------------------------------------------------------------------------------------------------------


def device_of(args) -> torch.device:
    """That of the first tensor."""
    return next(a.device for a in args if isinstance(a, Tensor))


def _meta(args) -> list:
    """The arguments, with tensors that have no memory."""
    return [
        empty_strided(a.shape, a.stride(), dtype=a.dtype, device="meta") if isinstance(a, Tensor) else a for a in args
    ]


def _layouts(tensors) -> list[tuple]:
    return [(tuple(x.shape), x.stride(), x.dtype) for x in tensors]


def _as_tuple(results) -> tuple:
    return (results,) if isinstance(results, Tensor) else results or ()


def as_announced(fake: Callable, args) -> Callable:
    """A function that brings the reference's results into the layouts that `fake` announces; None: an empty tensor."""
    layouts, device = _layouts(_as_tuple(fake(*_meta(args)))), device_of(args)

    def laid(x, layout):
        shape, stride, dtype = layout
        if x is None:
            return empty_strided(shape, stride, dtype=dtype, device=device)
        if x.stride() == stride or all(size == 1 or a == b for size, a, b in zip(shape, x.stride(), stride)):
            return x
        return empty_strided(shape, stride, dtype=dtype, device=device).copy_(x)

    def place(results):
        if isinstance(results, Tensor):
            return laid(results, layouts[0])
        return results and tuple([laid(x, layout) for x, layout in zip(results, layouts)])

    return place


# --- kernels ----------------------------------------------------------------------------------------------------------


def not_float64(*args):
    """`supports` of kernels that compute in fp32."""
    wide = any(isinstance(a, Tensor) and a.dtype is torch.float64 for a in args)
    return "float64 goes through the reference" if wide else True


def contiguous(*args):
    return [a.contiguous() if isinstance(a, Tensor) else a for a in args]


@dataclass(frozen=True)
class Workspace:
    """Memory that kernels need beside their results: as many elements of `dtype` as the backend's function says."""

    dtype: torch.dtype
    cuda: Callable  # cuda(the extension's CUDA half, *args)
    triton: Callable  # triton(the module of kernels/, *args)


@dataclass(frozen=True)
class _Kernels:
    """What kernels() is told."""

    triton: str
    operands: Callable
    layout: Callable
    workspace: Workspace | None
    triton_operands: Callable | None
    triton_layout: Callable | None
    none_if_empty: bool

    def bind(self, name: str, op, *args) -> Callable:
        """Of arguments with the signature of these: results, computed by the backend of this name."""
        triton, device = name == "triton", device_of(args)
        meta = _meta(args)
        layout = self.triton_layout if triton and self.triton_layout else self.layout
        taken = layout(*meta)
        results = op.fake(*meta)
        single, fresh = isinstance(results, Tensor), [*_as_tuple(results)]
        results = [None if triton and self.none_if_empty and x.numel() == 0 else x for x in fresh]
        module, function = self._function(name, op)
        workspace, scratch = [], []  # an operand, and the tensor where it is one
        if hasattr(self.workspace, name):
            size = getattr(self.workspace, name)(module, *taken)
            scratch = [torch.empty(size, dtype=self.workspace.dtype, device="meta")] if size or triton else []
            workspace = scratch or [None]
        operands = self.triton_operands if triton else self.operands
        operands = operands(*taken) if operands else taken
        pattern, places = _pattern([*operands, *workspace, *results], [*taken, *scratch, *fresh], triton)
        launch = _launcher(name, device, function, pattern, places)
        made, first = _layouts([*scratch, *fresh]), len(taken) + len(scratch)
        if all(a is b for a, b in zip(meta, taken)):
            layout = None

        def run(*args):
            tensors = [*args] if layout is None else [*layout(*args)]
            for shape, stride, dtype in made:
                tensors.append(empty_strided(shape, stride, dtype=dtype, device=device))
            launch(tensors)
            return tensors[-1] if single else tuple(tensors[first:])

        return run

    def _function(self, name: str, op) -> tuple:
        """The module with kernels and what launches them."""
        if name != "triton":
            module = getattr(_extension.extension(), name)
            return module, getattr(module, op.name)
        file, launcher = self.triton.split(".")
        module = importlib.import_module(f"ganfast.kernels.{file}")
        return module, getattr(module, launcher)


def _pattern(operands, tensors, triton: bool) -> tuple[list, list]:
    """What a kernel is given, without the tensors; and the pairs (place among the operands, place in `tensors`)."""
    pattern, places = [], []
    for a in operands:
        if isinstance(a, torch.dtype):
            pattern += [] if triton else [_extension.DTYPES[a]]
        elif isinstance(a, Tensor):
            places += [(len(pattern), i) for i, x in enumerate(tensors) if x is a]
            pattern.append(None)
        else:
            pattern.append(0 if a is None and not triton else a)
    return pattern, places


def _launcher(name: str, device: torch.device, function: Callable, pattern: list, places: list) -> Callable:
    """Of the tensors: launch the kernel with them. The caller keeps them until it has returned."""

    def cpu(tensors):
        function(*_numbers(pattern, places, tensors), get_num_threads())

    def cuda(tensors):
        on_stream(device, function, pattern, places, tensors)

    def triton(tensors):
        given = pattern.copy()
        for place, source in places:
            given[place] = tensors[source]
        with guard(device):
            function(*given)

    return {"cpu": cpu, "cuda": cuda, "triton": triton}[name]


def kernels(
    triton, *, operands, layout=contiguous, workspace=None, triton_operands=None, triton_layout=None, cuda_limit=None,
    none_if_empty=False,
) -> Callable:  # fmt: skip
    """Op's `backends` of an operator that has kernels in CUDA, in Triton and on the CPU, which compute in fp32.

    layout           layout(*args): the arguments as kernels read them, themselves or copies (default: contiguous)
    operands         operands(*args): what the extension's function of the operator's name takes before the workspace
                     (CUDA's has one), the results, and the number of threads or the stream; a dtype stands for its code
    triton           "file.launcher" of kernels/: launcher(*operands, workspace, *results)
    triton_operands  as operands (default: the arguments); dtypes are left out, the tensors tell them
    triton_layout    as layout, where Triton's kernels differ
    cuda_limit       cuda_limit(*args): True, or why the CUDA kernels cannot take them
    none_if_empty    a result without elements is None to the Triton launcher

    Results are allocated as the operator's `fake` says.
    """
    told = _Kernels(triton, operands, layout, workspace, triton_operands, triton_layout, none_if_empty)

    def limited(*args):
        reason = not_float64(*args)
        return reason if reason is not True or cuda_limit is None else cuda_limit(*args)

    def make(op) -> list[Backend]:
        def backend(name, supports):
            bind = functools.partial(told.bind, name, op)
            return Backend(name, lambda *args: bind(*args)(*args), supports, bind=bind)

        return [backend("cuda", limited), backend("triton", not_float64), backend("cpu", not_float64)]

    return make
