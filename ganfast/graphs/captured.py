"""``ganfast.capture``: a person's own training step as one CUDA graph."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten  # torch has no public one

from ganfast.errors import InputError
from ganfast.graphs.dry_run import DryRun
from ganfast.graphs.recorded import Recorded, beside
from ganfast.ops import for_graph

_GRAD = operator.attrgetter("grad")


def capture(step: Callable, *inputs: Any) -> "Captured":
    """``step`` as one CUDA graph: ``losses = captured(real)`` costs the host one launch, whatever the step does.

    ``step(*inputs)`` is a whole training step, penalties and optimisers included, and returns tensors (also a tuple,
    list or dict of them, or None). ``inputs`` are an example of what it gets: tensors, also nested, on the device, of
    the shapes and dtypes of all calls to come. A call's tensors are copied into the graph's memory, without a wait
    where they are on the device or in pinned memory; what else is in ``inputs`` is a constant.

    ``capture`` makes one call to find what a graph cannot hold, and puts back what it wrote: parameters, statistics,
    gradients, optimisers, loss scales, random states. So ``captured`` begins where ``step`` would. Its first three
    calls train as they are, on a stream of their own, while kernels are compiled and measured; the fourth is captured,
    and replayed from then on. Without a GPU every call is ``step``'s own.

    The results carry no gradient. From the fourth call on they are the same tensors each time, overwritten by the next
    call: ``.clone()`` keeps one, and ``.item()`` waits for the device, so read losses now and then.

    - Optimisers get ``capturable=True`` and a tensor as ``lr``, which schedulers (called outside ``step``) and
      ``group["lr"] = x`` fill; other numbers of a group are frozen. SGD takes a new rate with ``fused=True`` only.
    - ``torch.amp.GradScaler`` works with fused optimisers, its ``update()`` in ``step``.
    - Python runs at the first four calls only: numbers, random ones too, and branches stay as they were at the fourth.
      ``capture`` itself calls ``step`` once more, and does not put back Python's own variables, nor memory that
      something else than torch's operators writes.
    - Load checkpoints before, or in place; after ``optimizer.load_state_dict`` call ``capture`` again.

    Raises InputError, a ValueError, that names file and line of ``.item()``, ``print``, ``if`` and ``float()`` of a
    tensor, ``.cpu()``, ``.numpy()``, boolean masks and what else has a size that depends on values, copies between host
    and device, and tensors made of host numbers; that names optimisers which count on the host (LBFGS, Adagrad,
    Adafactor, SparseAdam); and, at a call, a tensor of another shape or dtype than the example's.
    """
    return Captured(step, inputs)


class Captured:
    """What :func:`capture` returns; ``graph`` is its ``torch.cuda.CUDAGraph``, None before the fourth call or a GPU."""

    def __init__(self, step: Callable, inputs: tuple):
        _check_autocast()
        self.step = step
        values, self.spec = tree_flatten(inputs)
        self.flat = all(isinstance(v, Tensor) for v in inputs)
        stream, run = _stream(values), DryRun()
        with for_graph():
            if stream is None:
                run.run(step, inputs)
            else:
                with beside(stream):  # the capture's: autograd's nodes remember the stream of their first use
                    run.run(step, inputs)
        problems = run.problems()
        if problems:
            raise InputError("\n  ".join(["the step cannot become a CUDA graph:", *problems]))
        self.recorded: Recorded | None = None
        self.values = [_describe(v) for v in values]
        if stream is not None and run.on_gpu:
            self.values = [_static(v) for v in values]
            self.recorded = Recorded(self._call, stream, run.generators.values())
            self.parameters = run.parameters
            self.receivers: list[Tensor] = []  # the parameters that have a gradient after a call
            self.received: list[Tensor] = []  # and these
            self.gradients: list[tuple[Tensor, Tensor, bool]] = []  # (parameter, the graph's, whether it adds to it)
            self.rates = [(o, o.param_groups, _make_capturable(o)) for o in run.optimizers.values()]

    @property
    def graph(self) -> "torch.cuda.CUDAGraph | None":
        return self.recorded and self.recorded.graph

    def __call__(self, *inputs: Any) -> Any:
        values = inputs
        if not self.flat or len(inputs) != len(self.values):
            values, spec = tree_flatten(inputs)
            if spec != self.spec:
                raise InputError(f"inputs: got {_structure(spec)}, needs {_structure(self.spec)} as the example")
        for i, (value, needed) in enumerate(zip(values, self.values)):
            _check(i, value, needed)
        if self.recorded is None:
            return _detached(self.step(*inputs))
        for value, static in zip(values, self.values):
            if isinstance(static, Tensor):
                static.copy_(value, non_blocking=True)
        self._follow_rates()
        if self.recorded.graph is not None:
            self._follow_gradients()
            return self.recorded()
        return self._first_calls()

    def _call(self) -> Any:
        return _detached(self.step(*tree_unflatten(self.values, self.spec)))

    def _first_calls(self) -> Any:
        _check_autocast()
        before = [parameter.grad for parameter in self.parameters]
        if not self.recorded.to_warm:  # so that the graph adds to a gradient, unless the step itself drops it
            for parameter in self.receivers:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        start = [parameter.grad for parameter in self.parameters]
        try:
            results = self.recorded()
        except Exception as error:
            for parameter, grad in zip(self.parameters, before):
                parameter.grad = grad
            if not isinstance(error, InputError):
                raise
            hint = "a result of an earlier step may hold its autograd graph: keep loss.detach()"
            raise InputError(f"{error}; where nothing in it waits for the device, {hint}") from error
        self.receivers = [parameter for parameter in self.parameters if parameter.grad is not None]
        self.received = [parameter.grad for parameter in self.receivers]
        self.gradients = [(p, p.grad, p.grad is g) for p, g in zip(self.parameters, start) if p.grad is not None]
        return results

    def _follow_gradients(self) -> None:
        """Where ``.grad`` was replaced since the last call, as by ``zero_grad()``: the graph has its own."""
        if all(map(operator.is_, map(_GRAD, self.receivers), self.received)):
            return
        for parameter, grad, adds in self.gradients:
            if parameter.grad is not grad:
                if adds and parameter.grad is None:
                    grad.zero_()
                elif adds:
                    grad.copy_(parameter.grad)
                parameter.grad = grad

    def _follow_rates(self) -> None:
        for optimizer, groups, rates in self.rates:
            if optimizer.param_groups is not groups:
                raise InputError(f"{type(optimizer).__name__}: its state was loaded since: call ganfast.capture again")
            for group, rate in zip(groups, rates):
                if group["lr"] is rate:
                    continue
                if isinstance(rate, Tensor):
                    rate.fill_(group["lr"])
                    group["lr"] = rate
                elif group["lr"] != rate:
                    raise InputError(
                        f"{type(optimizer).__name__}: lr became {group['lr']}, and the graph has {rate}: use fused=True"
                    )


def _stream(values: list) -> "torch.cuda.Stream | None":
    """A stream beside the current one, on the inputs' GPU or the current one; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    devices = [v.device for v in values if isinstance(v, Tensor) and v.is_cuda]
    return torch.cuda.Stream(*devices[:1])


def _check_autocast() -> None:
    """Autocast keeps the weights it casts until it ends: a graph would read those of the first step for ever."""
    if any(map(torch.is_autocast_enabled, ("cuda", "cpu"))) and torch.is_autocast_cache_enabled():
        raise InputError("torch.autocast is on around the step, and keeps weights it has cast: enter it in the step")


def _make_capturable(optimizer: Optimizer) -> list[Tensor | float]:
    """Its counts and, where it can read them there, its rates become tensors on the device; returns the rates."""
    rates = []
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
        if "capturable" in group or group.get("fused"):
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=group["params"][0].device)
        rates.append(group["lr"])
    for parameter, state in optimizer.state.items():
        for name, v in state.items():
            if isinstance(v, Tensor) and v.dim() == 0:
                state[name] = v.to(parameter.device)
    return rates


def _describe(value: Any) -> Any:
    """A tensor's shape and dtype without its memory."""
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def _static(value: Any) -> Any:
    """A tensor's copy that stays where it is."""
    return value.detach().clone().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def _check(i: int, value: Any, needed: Any) -> None:
    if not isinstance(needed, Tensor):
        if isinstance(value, Tensor) or value != needed:
            raise InputError(
                f"input {i}: got {value!r}, needs {needed!r}: what is no tensor is a constant of the graph"
            )
    elif not isinstance(value, Tensor):
        raise InputError(f"input {i}: got {type(value).__name__}, needs a tensor as the example")
    elif value.shape != needed.shape or value.dtype != needed.dtype:
        got, need = (f"{t.dtype} {tuple(t.shape)}".removeprefix("torch.") for t in (value, needed))
        advice = " (a last batch that is smaller: DataLoader(drop_last=True))" if value.dtype == needed.dtype else ""
        raise InputError(f"input {i}: got {got}, needs {need} as the example{advice}")


def _structure(spec) -> str:
    return str(tree_unflatten(["*"] * spec.num_leaves, spec)).replace("'*'", "*")


def _detached(results: Any) -> Any:
    return tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, results)
