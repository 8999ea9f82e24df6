"""The frame that every operator is poured into.

An operator is registered as ``torch.ops.ganfast.<name>``: shapes (fake), derivative, autocast rule, and one
implementation that picks a backend at run time. To add one, write ``ganfast/ops/<name>.py`` with an :class:`Op` for the
function and one for each derivative (``sigmoid_bce.py`` is the model) and name the file in ``ops/__init__.py``. Each
states its check, the allocation of its results (``fake``, which the backends use, too), its reference, its derivative,
and as ``backends`` how its arguments become those of its kernels (:class:`ganfast.ops._backends.Kernels`); contiguous
copies, workspaces, pointers, guard, stream and the layouts of the reference's results are made there.

Why ``torch.library.Library`` and not ``torch.library.custom_op``: forward and backward of a toy operator on 64 numbers
take 51 µs against 63 µs; called directly as an ``autograd.Function`` 29 µs (torch 2.13, a CPU). So in plain eager mode
``Op.__call__`` goes past the dispatcher, with the same derivative formulas; whatever watches the dispatcher (compile,
fake tensors, autocast of an op with a rule, tensor subclasses) gets the registered operator. Under torch.func's
transforms, for which torch does not make registered derivatives, the plain reference runs.

A call is planned once for each signature (shapes, strides, dtypes, devices, numbers): then arguments are checked, and a
backend is found and bound to it; a later call of that signature, through the dispatcher, too, looks the plan up.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from ganfast.errors import InputError
from ganfast.ops import _backends, _tuning
from ganfast.ops._backends import NAMES, Kernels, as_announced, device_of
from ganfast.ops._private import (
    are_functorch_transforms_active,
    get_tracing_state,
    len_torch_dispatch_stack,
    unwrap_if_dead,
    will_engine_execute_node,
)

OPS: dict = {}
MOST_PLANS = 4096  # of an operator; then it begins anew
_LIBRARY = torch.library.Library("ganfast", "FRAGMENT")
_forced: str | None = None


def _check_name(name: str | None) -> str | None:
    if name is not None and name not in NAMES:
        raise InputError(
            f"GANFAST_BACKEND: got {name!r}, needs one of {', '.join(NAMES)}, or nothing to choose by itself"
        )
    return name


@contextlib.contextmanager
def use_backend(name: str | None):
    """Inside, every operator runs on this backend (as GANFAST_BACKEND forces it); None chooses by itself."""
    global _forced
    before, _forced = _forced, _check_name(name)
    try:
        yield
    finally:
        _forced = before


def unforced() -> bool:
    """Whether operators choose their backends themselves."""
    return _forced is None


def launches(device: torch.device) -> bool:
    """Whether calls on `device` are launches, for which a caller pays the host's time and not the device's."""
    return device.type == _backends.DEVICES["triton"]


def is_eager(device: torch.device) -> bool:
    """Whether a call on `device` is launched now, from Python, and by no CUDA graph later: the host's time counts."""
    return launches(device) and not _tuning.in_graph(device)


def host_counts(device: torch.device) -> bool:
    """Whether torch's own operators may be the faster ones on `device` for what Python costs: eager, nothing forced."""
    return _forced is None and is_eager(device)


class Plan(NamedTuple):
    """What a call of a signature does."""

    run: Callable  # of the arguments
    derive: bool  # whether a gradient may be asked for


def signature(args) -> tuple | None:
    """What a plan depends on; None where a tensor is of another class than torch's own, or one that torch.func left."""
    key = []
    for a in args:
        kind = type(a)
        if kind is Tensor or kind is Parameter:
            if a.layout is not torch.strided or unwrap_if_dead(a) is not a:
                return None
            key.append((a.shape, a.stride(), a.dtype, a.device, a.requires_grad))
        elif kind is list:
            key.append(tuple(a))
        elif isinstance(a, Tensor):
            return None
        else:
            key.append((kind, a))
    return tuple(key)


def once(function: Callable) -> Callable:
    """function(*args), called once for shapes, dtypes, devices and other values: a check, of which no strides matter.

    Its result is remembered, what it raised is not.
    """
    known = {}

    @functools.wraps(function)
    def remembered(*args):
        if torch.compiler.is_compiling():
            return function(*args)
        key = tuple([(a.shape, a.dtype, a.device, a.layout) if isinstance(a, Tensor) else a for a in args])
        found = _get(known, key)
        if found is None:
            found = (function(*args),)
            _put(known, key, found)
        return found[0]

    return remembered


def _get(known: dict, key):
    """known[key]; None where it is not there, or the key is not hashable."""
    try:
        return known.get(key)
    except TypeError:
        return None


def _put(known: dict, key, value) -> None:
    if len(known) >= MOST_PLANS:
        known.clear()
    with contextlib.suppress(TypeError):  # not hashable
        known[key] = value


class _Handoff(threading.local):
    run = None  # what the autograd.Function that is being applied runs


_handoff = _Handoff()


def cast(args, dtype):
    """As torch's autocast: floating tensors but fp64 to `dtype`."""
    return [
        a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() and a.dtype != torch.float64 else a for a in args
    ]


def in_demand(ctx) -> list[bool]:
    """For each tensor among an Op's inputs, whether the running backward asks for its gradient.

    ctx.needs_input_grad says only whether it could: autograd.grad(y, x) would pay for the weights' gradients, too.
    """
    return [node is not None and _executes(node) for node, _ in ctx.next_functions]


def _executes(node) -> bool:
    try:
        return will_engine_execute_node(node)
    except RuntimeError:  # a leaf that autograd.grad asks for
        return True


class Op:
    """A registered operator. Call it like the function it is; arguments are positional.

    schema         "name(Tensor x, Tensor(a!)? buffer, float t) -> Tensor", results are new tensors; what is changed in
                   place has no derivative
    check          check(*args) raises ValueError or TypeError for what no backend may see
    fake           fake(*args): empty results with the shapes, dtypes and strides of the real ones
    reference      reference(*args): plain PyTorch, runs everywhere and alone in fp64; its results are copied where fake
                   announces other strides, and None stands for an empty one
    backends       faster ones: Kernels, or a list of Backends, best first
    setup          setup(ctx, inputs, output) saves what the derivative needs (torch.library.register_autograd)
    backward       backward(ctx, *grads) calls other Ops and torch functions only, so that it can be derived again;
                   or a string: why there is no derivative; or None: it has no results
    autocast       None (takes any dtype as it is), "lower" (cast to autocast's dtype), "float32", or
                   autocast(args, dtype): the arguments as the operator takes them under autocast to dtype
    """

    def __init__(self, schema, *, check, fake, reference, backends=(), setup=None, backward, autocast=None):
        self.name = schema[: schema.index("(")]
        self.check, self.fake, self.reference = check, fake, reference
        self.backends = backends.backends(self) if isinstance(backends, Kernels) else backends
        self.setup = setup or (lambda ctx, inputs, output: None)
        self.backward = functools.partial(self._no_derivative, backward) if isinstance(backward, str) else backward
        self.autocast = autocast
        self._ready_on: dict = {}
        self._plans: dict[tuple, Plan] = {}
        self._register(schema)
        if self.backward is not None:  # the same without the dispatcher, and an apply that asks torch.func nothing
            function = self._autograd_function("ganfast", lambda *args: _handoff.run(*args))
            self._apply = super(torch.autograd.Function, function).apply
        OPS[self.name] = self

    def __call__(self, *args):
        if self.autocast is not None and self._autocasts(args):
            return self.overload(*args)  # checks what its rule makes of them
        if torch.compiler.is_compiling():
            self.check(*args)
            return self.overload(*args)
        if are_functorch_transforms_active():
            self.check(*args)
            return self._transformed(args)
        if len_torch_dispatch_stack() or get_tracing_state() is not None:
            self.check(*args)
            return self.overload(*args)
        plan = self._plan(args)
        if plan is None:
            return self.overload(*args)
        if not plan.derive:
            return plan.run(*args)
        _handoff.run = plan.run
        return self._apply(*args)

    def _plan(self, args) -> Plan | None:
        """The plan of these arguments, which are checked; None where they have no signature."""
        key = signature(args), torch.is_grad_enabled(), _forced
        plan = _get(self._plans, key)
        if plan is None:
            self.check(*args)
            if key[0] is None:
                return None
            derives = key[1] and self.backward is not None
            derives = derives and any(isinstance(a, Tensor) and a.requires_grad for a in args)
            plan = Plan(self._way(device_of(args), args), derives)
            _put(self._plans, key, plan)
        return plan

    def run(self, *args):
        """Run on the backend that is forced, or the first that can."""
        plan = self._plan(args)
        return (self._way(device_of(args), args) if plan is None else plan.run)(*args)

    def _transformed(self, args):
        """The reference under torch.func: it is derived and mapped through as it is, and no layouts are announced."""
        results = self.reference(*args)
        if isinstance(results, tuple) and any(x is None for x in results):
            return tuple(empty if x is None else x for x, empty in zip(results, self.fake(*args)))
        return results

    def _way(self, device, args) -> Callable:
        """What runs arguments of this signature."""
        if _forced is not None and _forced != "reference":
            return self._backend(_forced, device, args).bound(args)
        if _forced is None:
            for backend in self._ready(device):
                if backend.supports(*args) is True:
                    run = backend.bound(args)
                    if not backend.measured:
                        return run
                    return functools.partial(self._faster, backend, run, self._plain(device, args), device)
        return self._plain(device, args)

    def _plain(self, device, args) -> Callable:
        """The reference, with its results as they are announced."""
        place = None if self.fake is self.reference else as_announced(self.fake, args)
        return functools.partial(self._plainly, device.type, place)

    def _faster(self, backend, run, plainly, device, *args):
        """The reference or this backend, whichever was measured to be faster."""
        if callable(backend.measured) and not backend.measured(*args):
            return plainly(*args)
        ways = {"reference": functools.partial(plainly, *args), backend.name: lambda: run(*args)}
        vendor = torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.benchmark
        key = (*_tuning.key_of(self.name, args), *vendor)
        return ways[_tuning.choose(key, ways, device, by_host=is_eager(device))]()

    def _plainly(self, device_type, place, *args):
        if torch.is_autocast_enabled(device_type):  # the rule has been applied: no second one inside
            with torch.autocast(device_type, enabled=False):
                results = self.reference(*args)
        else:
            results = self.reference(*args)
        return results if place is None else place(results)

    def is_plain(self, device) -> bool:
        """Whether the reference is all that can run on `device`, or the one that is forced."""
        if _forced is not None:
            return _forced == "reference"
        try:
            return not self._ready_on[device]
        except KeyError:
            return not self._ready(device)

    def _ready(self, device):
        """The backends that this machine can run on `device`, best first."""
        ready = self._ready_on.get(device)
        if ready is None:
            here = [b for b in self.backends if b.device == device.type and _backends.available(b.name, device) is True]
            ready = self._ready_on[device] = here
        return ready

    def _answer(self, backend, device, args):
        if backend.device != device.type:
            return f"it runs on {backend.device}, the tensors are on {device.type}"
        machine = _backends.available(backend.name, device)
        return machine if machine is not True else backend.supports(*args)

    def _backend(self, name, device, args):
        """The forced backend, or RuntimeError with the reason why it cannot run."""
        backend = next((b for b in self.backends if b.name == name), None)
        reason = "it has no such backend" if backend is None else self._answer(backend, device, args)
        if reason is not True:
            raise RuntimeError(f"ganfast::{self.name} cannot run on the forced backend {name!r}: {reason}")
        return backend

    def _autocasts(self, args) -> bool:
        """Whether autocast is about to change the arguments by this operator's rule."""
        if are_functorch_transforms_active():
            return False
        return any(isinstance(a, Tensor) and torch.is_autocast_enabled(a.device.type) for a in args)

    def _no_derivative(self, reason, ctx, *grads):
        raise NotImplementedError(f"ganfast::{self.name} has no derivative: {reason}")

    def _autograd_function(self, name, call):
        """The derivative of the operator that `call` runs."""

        def forward(ctx, *args):
            output = call(*args)
            self.setup(ctx, args, output)
            return output

        functions = {"forward": staticmethod(forward), "backward": staticmethod(self.backward)}
        return type(torch.autograd.Function)(f"{name}_{self.name}", (torch.autograd.Function,), functions)

    def _below_autograd(self, *args):
        with torch._C._AutoDispatchBelowAutograd():
            return self.overload(*args)

    def _autograd(self, function, *args):
        """torch.library.register_autograd's kernel, which takes no operator that changes arguments in place."""
        derives = torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args)
        return (function.apply if derives else self._below_autograd)(*args)

    def _register(self, schema) -> None:
        qualified = f"ganfast::{self.name}"
        _LIBRARY.define(schema)
        self.overload = getattr(torch.ops.ganfast, self.name).default

        def fake(*args):
            self.check(*args)
            return self.fake(*args)

        _LIBRARY.impl(self.name, self.run, "CompositeExplicitAutograd")
        torch.library.register_fake(qualified, fake, lib=_LIBRARY)
        if self.backward is not None:
            function = self._autograd_function("dispatched", self._below_autograd)
            _LIBRARY.impl(self.name, functools.partial(self._autograd, function), "Autograd")
        if self.autocast is not None:
            for device in ("cpu", "cuda"):
                _LIBRARY.impl(self.name, functools.partial(self._autocasting, device), f"Autocast{device.upper()}")

    def _autocasting(self, device, *args):
        dtype = torch.float32 if self.autocast == "float32" else torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return self.overload(*(self.autocast if callable(self.autocast) else cast)(args, dtype))


def table() -> list[tuple]:
    """Rows (operator, device, backend, True or why not), in the order in which backends are tried."""
    rows = []
    for op in OPS.values():
        for device in ("cuda", "cpu"):
            names = [b.name for b in op.backends if b.device == device] + ["reference"]
            rows += [(op.name, device, name, _backends.available(name, torch.device(device))) for name in names]
    return rows


_forced = _check_name(os.environ.get("GANFAST_BACKEND") or None)
