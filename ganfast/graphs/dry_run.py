"""One watched call of a step: what a CUDA graph cannot hold is named, and whatever it wrote is put back."""

import contextlib
import functools
import gc
import linecache
import numbers
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves  # torch has no public one

from ganfast.graphs.recorded import is_torch

READS = "reads values on the host, which waits for the device: return the tensor, and read it after the call"
SIZES = "has a result whose size depends on values: use torch.where, or multiply by the mask"
MAKES = "makes a tensor of host numbers: make it once before the step, or with torch.full"
COPIES = "copies between host and device: do it before the step, or make it an input of the step"
DRAWS = "draws random numbers on the host, which every replay would repeat: draw them on the device"
SCALER = "GradScaler.step asks the device whether a gradient overflowed: give the optimiser fused=True"

_GANFAST = os.path.join(Path(__file__).parents[1], "")
_READERS = {getattr(Tensor, name) for name in ("cpu", "numpy", "tolist", "__array__", "__repr__")}
_MAKERS = {torch.tensor, torch.as_tensor, torch.asarray}
_SET_GRAD = Tensor.grad.__set__
_VALUES = {"aten::is_nonzero", "aten::_linalg_check_errors"}  # read a value, and have no tag that says so
_COPIES = {"aten::_to_copy", "aten::copy_", "aten::copy", "aten::_foreach_copy_"}


class DryRun(TorchDispatchMode):
    """``run(step, inputs)``: a real call, after which tensors, gradients, optimisers and random states are as before.

    A tensor that existed before is saved when an operator is about to write it. Python's own variables, and memory that
    something else than torch's operators writes, are not put back.

    Attributes:
        on_gpu: an operator ran there.
        parameters: the leaves that require gradients and were used.
        optimizers, generators: those that were used.
    """

    supports_higher_order_operators = True

    def __init__(self):
        super().__init__()
        self.on_gpu = False
        self.found: dict[tuple[str, str], str] = {}  # (type of device, place) → what is wrong
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.optimizers: dict[int, Optimizer] = {}
        self.generators: dict[int, torch.Generator] = {}
        self.thread = threading.get_ident()
        self._made: set[int] = set()  # storages that the run allocated
        self._undo: dict[Any, Callable[[], object]] = {}

    @property
    def parameters(self) -> list[Tensor]:
        return [leaf for leaf, _ in self.grads.values()]

    def run(self, step: Callable, inputs: tuple) -> None:
        hook = register_optimizer_step_pre_hook(self._optimizer)
        self._random_states()
        schedulers = self._python_objects()
        try:
            with _uncompiled(), self, _Functions(self):
                step(*inputs)
            for scheduler, epoch in schedulers:
                if scheduler.last_epoch != epoch:
                    name = type(scheduler).__name__
                    self._wrong("any", f"{name}.step", "would repeat one rate in every replay: call it after the step")
            for optimizer in self.optimizers.values():
                self._check(optimizer)
        finally:
            hook.remove()
            for undo in self._undo.values():
                undo()
            for leaf, grad in self.grads.values():
                leaf.grad = grad

    def problems(self) -> list[str]:
        """What a CUDA graph cannot hold: where, and what to do."""
        mine = "cuda" if self.on_gpu else "cpu"  # in a step on a GPU the host's own tensors are constants
        return [f"{place} {text}" for (device, place), text in self.found.items() if device in (mine, "any")]

    # -- what is put back --------------------------------------------------------------------------------------------

    def _random_states(self) -> None:
        state = torch.get_rng_state()
        self._undo["rng"] = lambda: torch.set_rng_state(state)
        if torch.cuda.is_initialized():
            states = torch.cuda.get_rng_state_all()
            self._undo["cuda"] = lambda: torch.cuda.set_rng_state_all(states)

    def _python_objects(self) -> list[tuple[LRScheduler, int]]:
        """Save the attributes of all loss scales and schedulers that there are: nothing tells which a step uses."""
        schedulers = []
        for o in _objects():
            if issubclass(type(o), (torch.amp.GradScaler, LRScheduler)):
                before = {name: v.copy() if isinstance(v, dict) else v for name, v in vars(o).items()}
                self._undo[id(o)] = functools.partial(vars(o).update, before)
                if isinstance(o, LRScheduler):
                    schedulers.append((o, o.last_epoch))
        return schedulers

    def _optimizer(self, optimizer: Optimizer, args, kwargs) -> None:
        if id(optimizer) in self.optimizers:
            return
        self.optimizers[id(optimizer)] = optimizer
        groups = [(group, dict(group)) for group in optimizer.param_groups]
        state = {parameter: dict(values) for parameter, values in optimizer.state.items()}

        def undo():
            for group, before in groups:
                group.clear(), group.update(before)
            optimizer.state.clear(), optimizer.state.update(state)

        self._undo[id(optimizer)] = undo

    def _save(self, tensor: Tensor) -> None:
        key = _storage(tensor)
        if key is None or key in self._made or key in self._undo:
            return
        whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
        self._undo[key] = functools.partial(whole.copy_, whole.clone())

    def note(self, leaf: Tensor) -> None:
        """Remember a leaf's gradient, before it changes."""
        if id(leaf) not in self.grads:
            self.grads[id(leaf)] = leaf, leaf.grad

    # -- what is seen -----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        for t in inputs:
            if t.requires_grad and t.is_leaf:
                self.note(t)
        for g in leaves:
            if isinstance(g, torch.Generator) and g._cdata not in self.generators:  # a new object at each call
                self.generators[g._cdata] = g
                self._undo[g._cdata] = functools.partial(g.set_state, g.get_state())
        for position, name in _written(func):
            for t in tree_leaves(args[position] if position < len(args) else kwargs.get(name)):
                if isinstance(t, Tensor):
                    self._save(t)
        result = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self._made |= {_storage(t) for t in outputs} - {_storage(t) for t in inputs}
        self.on_gpu = self.on_gpu or any(t.is_cuda for t in outputs)
        if isinstance(func, torch._ops.OpOverload):
            self._judge(func, args, inputs, outputs)
        return result

    def _judge(self, func, args, inputs, outputs) -> None:
        name, tags = func._schema.name, func.tags
        first = inputs[0] if inputs else outputs[0] if outputs else None
        if first is None:
            return
        devices = {t.device.type for t in (*inputs, *outputs)}
        text = None
        if torch.Tag.data_dependent_output in tags or name in _VALUES:
            text = READS
        elif name in ("aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"):
            index = [i for i in args[1] if i is not None]
            one = name != "aten::index" and args[2].numel() == 1 and args[2].device.type == "cpu"  # a masked_fill
            if any(i.dtype in (torch.bool, torch.uint8) for i in index) and not one:
                text = SIZES
            elif first.is_cuda and not all(i.is_cuda for i in index):
                text = COPIES
        elif torch.Tag.dynamic_output_shape in tags:
            text = SIZES
        elif name in _COPIES and {"cpu", "cuda"} <= devices:
            return self._wrong("cuda", self.place(), COPIES)
        elif name == "aten::lift_fresh" and first.is_cuda:
            text = MAKES
        elif torch.Tag.nondeterministic_seeded in tags and devices == {"cpu"}:
            return self._wrong("cuda", self.place(), DRAWS)
        if text:
            self._wrong(first.device.type, self.place(), text)

    def called(self, func, args, kwargs, result) -> None:
        """What no operator shows on a CPU."""
        if func in _READERS:
            self._wrong(args[0].device.type, self.place(), READS)
        elif func is Tensor.new_tensor or (func in _MAKERS and kwargs.get("device") is not None):
            self._wrong(result.device.type, self.place(), MAKES)

    def _check(self, optimizer: Optimizer) -> None:
        """Name an optimiser that counts on the host: a graph would repeat the one number."""
        if all("capturable" in group for group in optimizer.param_groups):
            return
        torchs = type(optimizer).__module__.startswith("torch.optim")
        for parameter, state in optimizer.state.items():
            for name, v in state.items():
                number = isinstance(v, numbers.Number) and not isinstance(v, bool)
                scalar = isinstance(v, Tensor) and v.dim() == 0 < parameter.dim() and v.device.type == "cpu"
                if number or (scalar and (torchs or parameter.is_cuda)):
                    text = f"keeps {name!r} on the host: use one that has capturable=True, such as Adam, or SGD"
                    return self._wrong("any", f"the optimiser {type(optimizer).__name__}", text)

    def _wrong(self, device: str, place: str | None, text: str) -> None:
        if place is None:
            return
        optimizer, scaler = (self._within(part) for part in ("optim/", "amp/grad_scaler.py"))
        if optimizer and device == "cpu":
            return  # on a GPU it is made capturable
        if scaler and text is READS:
            text = SCALER
        self.found.setdefault((device, place), text)

    def _frames(self):
        """This thread's, then the step's: autograd has a thread for each GPU."""
        for frame in (sys._getframe(1), sys._current_frames().get(self.thread)):
            while frame and frame.f_code is not DryRun.run.__code__:
                if frame.f_code.co_filename != __file__:
                    yield frame
                frame = frame.f_back
            if frame:
                return

    def _within(self, part: str) -> bool:
        return any(is_torch(f.f_code.co_filename) and f"torch/{part}" in f.f_code.co_filename for f in self._frames())

    def place(self) -> str | None:
        """The innermost line that is not torch's; None where it is ganfast's, which knows what a graph holds."""
        for frame in self._frames():
            file, line = frame.f_code.co_filename, frame.f_lineno
            if file.startswith(_GANFAST):
                return None
            if not is_torch(file):
                source = linecache.getline(file, line, frame.f_globals).strip()
                return f"{file}, line {line}, in {frame.f_code.co_name}" + (f": `{source}`" if source else ":")
        return "the step"


class _Functions(TorchFunctionMode):
    """Python's calls of torch, for what reaches no operator."""

    def __init__(self, run: DryRun):
        super().__init__()
        self.run = run

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == _SET_GRAD:
            self.run.note(args[0])
        result = func(*args, **kwargs)
        self.run.called(func, args, kwargs, result)
        return result


def _uncompiled() -> contextlib.AbstractContextManager:
    """Compiled functions run as they are: called under a mode first, they would never be compiled."""
    if "torch._dynamo" not in sys.modules:  # loading it takes seconds
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


@functools.cache
def _written(func) -> tuple[tuple[int, str], ...]:
    """(position, name) of what an operator writes; running statistics are, also where torch's schema is silent."""
    if not isinstance(func, torch._ops.OpOverload):
        return ()
    return tuple(
        (i, a.name)
        for i, a in enumerate(func._schema.arguments)
        if (a.alias_info is not None and a.alias_info.is_write) or a.name.startswith("running_")
    )


def _objects() -> list:
    """Python's objects, those that gc.freeze() has put away among them."""
    if not gc.get_freeze_count():
        return gc.get_objects()
    gc.collect()  # freezing again would keep what is garbage now; costs little while the others are put away
    gc.unfreeze()
    try:
        return gc.get_objects()
    finally:
        gc.freeze()


def _storage(tensor: Tensor) -> int | None:
    """What tells a tensor's memory from another's; None where it has none."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return None
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (NotImplementedError, RuntimeError):  # a subclass without memory of its own
        return None
