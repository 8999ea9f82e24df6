"""Backends of operators, and the one way in which an operator's arguments become those of its kernels.

An operator's file states facts (:class:`Kernels`). They are evaluated once for each signature: whether arguments
must be copied into another layout, the layouts of results and workspace, and every number that a kernel takes. A call
then allocates, fills in the tensors or their pointers, and launches on the current stream.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, empty_strided, get_num_threads
from torch.autograd.graph import increment_version

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
    layouts, device = _layouts(_as_tuple(fake(*args))), device_of(args)

    def moved(x, shape, stride, dtype):
        if x is not None and all(size == 1 or a == b for size, a, b in zip(shape, x.stride(), stride)):
            return x
        made = empty_strided(shape, stride, dtype=dtype, device=device)
        return made if x is None else made.copy_(x)

    def place(results):
        laid = [
            x if x is not None and x.stride() == layout[1] else moved(x, *layout)
            for x, layout in zip(_as_tuple(results), layouts)
        ]
        return laid[0] if isinstance(results, Tensor) else results and tuple(laid)

    return place


# --- kernels ----------------------------------------------------------------------------------------------------------


def not_float64(*args):
    """`supports` of kernels that compute in fp32."""
    wide = any(isinstance(a, Tensor) and a.dtype is torch.float64 for a in args)
    return "float64 goes through the reference" if wide else True


def contiguous(*args):
    return [a.contiguous() if isinstance(a, Tensor) else a for a in args]


def _all(*args):
    return args


@dataclass(frozen=True)
class Workspace:
    """Memory that kernels need beside their results: as many elements of `dtype` as the backend's function says."""

    dtype: torch.dtype
    cuda: Callable  # cuda(the extension's CUDA half, *args)
    triton: Callable  # triton(the module of kernels/, *args)


@dataclass(frozen=True)
class Kernels:
    """An operator's kernels in CUDA, in Triton and on the CPU, which compute in fp32: Op's `backends`.

    triton           "file.launcher" of kernels/: launcher(*operands, workspace, *results)
    operands         operands(*args): what the extension's function of the operator's name takes before the workspace
                     (in CUDA), the results, and the number of threads or the stream; a dtype stands for its code
    triton_operands  as operands (default: the arguments); dtypes are left out, tensors tell them
    layout           layout(*args): the arguments as kernels read them, themselves or copies (default: contiguous)
    triton_layout    as layout, where Triton's kernels differ
    workspace        a Workspace
    names            the backends that there are, best first
    limit            limit(name, *args): True, or why this backend's kernels cannot take them
    none_if_empty    a result without elements is None to the Triton launcher

    Results are allocated as the operator's `fake` says. What its schema says is changed in place has to be contiguous:
    it is never copied, and autograd is told.
    """

    triton: str
    operands: Callable
    _: KW_ONLY
    triton_operands: Callable = _all
    layout: Callable = contiguous
    triton_layout: Callable | None = None
    workspace: Workspace | None = None
    names: tuple = ("cuda", "triton", "cpu")
    limit: Callable | None = None
    none_if_empty: bool = False

    def backends(self, op) -> list[Backend]:
        def backend(name):
            bind, supports = (functools.partial(f, name, op) for f in (self._bind, self._supports))
            return Backend(name, lambda *args: bind(*args)(*args), supports, bind=bind)

        return [backend(name) for name in self.names]

    def _supports(self, name: str, op, *args):
        reason = not_float64(*args)
        if reason is True and self.limit is not None:
            reason = self.limit(name, *args)
        gaps = [key for i, key in _changed(op, args) if not args[i].is_contiguous()]
        return f"{gaps[0]} has gaps and is changed in place" if gaps and reason is True else reason

    def _bind(self, name: str, op, *args) -> Callable:
        device, triton = device_of(args), name == "triton"
        layout, operands = self.layout, self.operands
        if triton:
            layout, operands = self.triton_layout or layout, self.triton_operands
        module, function = self._function(name, op)
        given = _meta(args)
        taken = layout(*given)
        results = op.fake(*args)  # freed before the first call; on meta tensors torch would take ten times as long
        single, results = isinstance(results, Tensor), _as_tuple(results)
        scratch = self._scratch(name, module, taken)
        made = [x for x in (*scratch, *results) if x is not None]
        drop = triton and self.none_if_empty
        passed = [*operands(*taken), *scratch, *(None if drop and not x.numel() else x for x in results)]
        launch = _launcher(name, device, function, *_pattern(passed, [*taken, *made], triton))
        if all(a is b for a, b in zip(given, taken)):
            layout = None
        layouts, first = _layouts(made), len(args) + len(made) - len(results)
        changed = [i for i, _ in _changed(op, args)]

        def run(*args):
            tensors = [*args] if layout is None else [*layout(*args)]
            for shape, stride, dtype in layouts:
                tensors.append(empty_strided(shape, stride, dtype=dtype, device=device))
            launch(tensors)
            if changed:
                increment_version([args[i] for i in changed])
            return tensors[-1] if single else tuple(tensors[first:])

        return run

    def _function(self, name: str, op) -> tuple:
        """The module with the kernels, and what launches them."""
        if name != "triton":
            module = getattr(_extension.extension(), name)
            return module, getattr(module, op.name)
        file, launcher = self.triton.split(".")
        module = importlib.import_module(f"ganfast.kernels.{file}")
        return module, getattr(module, launcher)

    def _scratch(self, name: str, module, args) -> list:
        """The workspace, if the backend takes one; the extension gets None for none."""
        count = getattr(self.workspace, name, None)
        if count is None:
            return []
        size = count(module, *args)
        return [torch.empty(size, dtype=self.workspace.dtype, device="meta") if size or name == "triton" else None]


def _changed(op, args) -> list[tuple[int, str]]:
    """Place and name of each tensor among the arguments that the operator changes in place."""
    named = enumerate(op.overload._schema.arguments)
    return [(i, a.name) for i, a in named if a.alias_info and a.alias_info.is_write and args[i] is not None]


def _pattern(passed, tensors, triton: bool) -> tuple[list, list]:
    """What a kernel is passed, without the tensors; and pairs of a place in it and one in `tensors`."""
    index = {id(x): i for i, x in enumerate(tensors) if isinstance(x, Tensor)}
    pattern, places = [], []
    for a in passed:
        if isinstance(a, Tensor):
            places.append((len(pattern), index[id(a)]))
        elif isinstance(a, torch.dtype):
            if triton:
                continue
            a = _extension.DTYPES[a]
        elif a is None and not triton:
            a = 0
        pattern.append(None if isinstance(a, Tensor) else a)
    return pattern, places


def _launcher(name: str, device: torch.device, function: Callable, pattern: list, places: list) -> Callable:
    """launch(tensors), which the caller keeps until it has returned."""

    def cpu(tensors):
        function(*_numbers(pattern, places, tensors), get_num_threads())

    def cuda(tensors):
        on_stream(device, function, pattern, places, tensors)

    def triton(tensors):
        passed = pattern.copy()
        for place, source in places:
            passed[place] = tensors[source]
        with guard(device):
            function(*passed)

    return {"cpu": cpu, "cuda": cuda, "triton": triton}[name]
