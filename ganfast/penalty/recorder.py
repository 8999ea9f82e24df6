"""A critic's forward, run as it is, with each of its calls put on a tape: :func:`record`.

Nothing is traced beforehand. The critic's own Python runs at each pass, so whatever it reads (numbers out of buffers,
flags, sizes) is what it is then, and what it writes is written as often as in plain torch. In place of a value that
depends on x its code gets a *handle*: a leaf that requires grad and shares the value's memory. A function with a rule
(functions.py) is taken over; any other runs as it is on such leaves, so that autograd records it: an :class:`Island`,
closed where its result is read.
"""

import contextlib
import sys
import weakref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ganfast.penalty import functions, of_layers, of_tensors  # noqa: F401 (they fill functions' tables)
from ganfast.penalty.rules import REGISTERED, Island, NoRuleError, NotMergedError
from ganfast.penalty.scores import first
from ganfast.penalty.sweeps import CONSTANT, Tape

_MARK = "_ganfast"  # the attribute of a handle: its _Mark
_METADATA = frozenset(
    getattr(Tensor, name).__get__
    for name in (
        "shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_leaf", "grad_fn", "is_cuda", "is_cpu",
        "is_meta", "is_sparse", "is_quantized", "is_mkldnn", "is_nested", "is_xpu", "is_mps", "itemsize", "nbytes",
        "names", "grad", "retains_grad", "_version",
    )
    if hasattr(Tensor, name)
) | {
    Tensor.dim, Tensor.ndimension, Tensor.is_floating_point, Tensor.is_complex, Tensor.is_contiguous, Tensor.stride,
    Tensor.get_device, Tensor.element_size, Tensor.is_signed, torch.is_floating_point, torch.is_complex,
}  # fmt: skip


class _Mark:
    """What a tensor stands for: the number and the memory of a value; None and None where it does not depend on x.

    ``key`` is that of a pass, and not its tape: autograd's graph would hold that, and it the graph, for ever.
    """

    __slots__ = ("key", "number", "plain", "version")

    def __init__(self, key, number, plain, version):
        self.key, self.number, self.plain, self.version = key, number, plain, version


class _OfIsland(_Mark):
    """Of a leaf that only autograd's graph holds."""

    __slots__ = ()


class _Rows(int):
    """The number of rows in a merged step: it may say a shape, and nothing else, since it is three batches'."""

    def _refuse(self, *args):
        raise NotMergedError("its forward computes with the size of the batch")

    __hash__ = int.__hash__


_ARITHMETIC = """
    add radd sub rsub mul rmul floordiv rfloordiv truediv rtruediv mod rmod divmod rdivmod pow rpow lt le gt ge eq ne
    neg pos abs float bool and rand or ror xor rxor lshift rshift rlshift rrshift invert round
"""
for _name in _ARITHMETIC.split():
    setattr(_Rows, f"__{_name}__", _Rows._refuse)


def record(critic, x: Tensor, inputs=(), start=0, lines=False) -> tuple[Tape, Tensor]:
    """(tape, scores): one pass of the critic over plain x. Raises NoRuleError or NotMergedError.

    Of several results the first are the scores. ``start`` > 0 is a merged step (sweeps.py). ``lines``: note where in
    the critic's code each call is.
    """
    recorder = _Recorder(Tape(x, start), lines)
    try:
        with torch.enable_grad(), _registered(critic, recorder):
            handles = [recorder.handle(x, 0)]
            with recorder:
                result = critic(handles.pop(), *inputs)
    except (NoRuleError, NotMergedError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of the critic's own code: plain torch will say so again
        raise NoRuleError(f"its forward raises {type(error).__name__}: {error}".splitlines()[0]) from error
    scores = recorder.scores(result)
    del result
    recorder.check_nothing_kept()
    return recorder.tape, scores


class _Recorder(TorchFunctionMode):
    def __init__(self, tape, lines):
        super().__init__()
        self.tape, self.lines, self.key = tape, lines, object()
        self.handles = []  # weak references to what the critic's code got
        self.memory = {}  # number of a value → the number of the value whose memory it has
        self.readers = {}  # number of a value → how many calls have read it
        self.captured = set()  # numbers of handles that autograd holds for a call that torch did not show
        self.counters = []

    # --- handles ------------------------------------------------------------------------------------------------------

    def handle(self, plain, number, memory=None):
        """What the critic's code gets for a value, which may have the memory of another."""
        handle = plain.detach().requires_grad_()
        self._mark(handle, plain, number, memory)
        return handle

    def _mark(self, tensor, plain, number, memory=None):
        tensor._ganfast = _Mark(self.key, number, plain, tensor._version)
        self.memory[number] = number if memory is None else self.memory[memory]
        self.handles.append(weakref.ref(tensor))

    def _alive(self) -> list:
        """The handles that somebody holds."""
        return [handle for handle in (reference() for reference in self.handles) if handle is not None]

    def mark_of(self, tensor):
        """The mark of a tensor that depends on x, else None."""
        if not tensor.requires_grad:
            return None
        mark = tensor.__dict__.get(_MARK)
        if mark is None or mark.key is not self.key or (mark.plain is None and mark.version != tensor._version):
            return None if tensor.grad_fn is None else self._close(tensor)
        if mark.plain is None:
            return None
        if mark.number is None:
            raise NoRuleError("it reads a tensor whose memory was changed in place by way of another")
        if mark.version != tensor._version:
            raise NoRuleError("it changes a tensor in place in a way that torch does not show")
        return mark

    def live(self, value) -> bool:
        """Whether a value depends on x."""
        return isinstance(value, Tensor) and self.mark_of(value) is not None

    def _close(self, tensor):
        """The mark of an island's result, or None where it is made of parameters alone, as a normalised weight is."""
        xs, parameters = [], []
        for leaf in _leaves(tensor):
            mark = leaf.__dict__.get(_MARK)
            if mark is None or mark.key is not self.key:
                parameters.append(leaf)
                continue
            xs.append((leaf, mark.number))
            if type(mark) is _Mark:
                self.captured.add(mark.number)
        if not xs:
            tensor._ganfast = _Mark(self.key, None, None, tensor._version)
            return None
        if self.tape.start:
            raise NotMergedError("a part of it is left to autograd")
        rule = Island(tensor, [leaf for leaf, _ in xs], parameters)
        number = self.tape.add(rule, [number for _, number in xs], tuple(parameters), None, self._line())
        self._mark(tensor, tensor.detach(), number)
        return tensor._ganfast

    # --- calls --------------------------------------------------------------------------------------------------------

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _METADATA:
            return self._rows(args[0], function(*args, **kwargs))
        if not self._meets_x(args) and not (kwargs and self._meets_x(kwargs.values())):
            return self._beside(function, args, kwargs)
        if function in functions.REFUSED:
            raise NoRuleError(f"it calls {functions.name_of(function)} on what depends on x")
        if function is Tensor.size:
            return self._size(*args, **kwargs)
        if function in functions.CONSTANTS:  # of the shape alone
            return function(*self._mapped(args, self._plain), **kwargs)
        plain = functions.out_of_place(function, args, kwargs)
        target = args[0] if plain is not None and self.live(args[0]) else None
        if target is not None:
            function, args, kwargs = plain
        if not torch.is_grad_enabled():  # torch takes what is made here for constants
            return self._constant(function, args, kwargs, target)
        return self._differentiable(function, args, kwargs, target)

    def _meets_x(self, values) -> bool:
        """Whether something among the arguments depends on x."""
        for value in values:
            if isinstance(value, Tensor):
                if value.requires_grad and self.mark_of(value) is not None:
                    return True
            elif isinstance(value, (tuple, list)) and self._meets_x(value):
                return True
        return False

    def _differentiable(self, function, args, kwargs, target):
        self._check_rows(function, args, kwargs)
        composite = functions.COMPOSITES.get(function)
        if composite is not None and target is None:
            with self:
                made = composite(*args, **kwargs)
            if made is not None:
                return made
        found = self._rule(function, args, kwargs)
        if found is None:
            return self._native(function, args, kwargs, target)
        rule, tensors = found
        plain, number, first = self._taken(rule, tensors, target is not None)
        if target is not None:
            return self._replaced(target, plain, number)
        return self.handle(plain, number, first if rule.views else None)

    def _rule(self, function, args, kwargs):
        """(rule, tensors) of a call, None where it has none."""
        make = functions.RULES.get(function)
        if make is None:
            return None
        try:
            found = make(self, *args, **kwargs)
        except (TypeError, IndexError, NoRuleError):  # arguments of another form
            return None
        return found if found is not None and any(map(self.live, found[1])) else None

    def _taken(self, rule, tensors, in_place=False):
        """(y, its number, that of the first tensor) of a call by its rule."""
        numbers, values = [], []
        for tensor in tensors:
            mark = self.mark_of(tensor)
            if mark is not None:
                numbers.append(mark.number)
                values.append(mark.plain)
            else:
                numbers.append(self.tape.hold(tensor) if tensor.requires_grad else CONSTANT)
                values.append(tensor.detach())
        overwrite = in_place and self._is_free(numbers[0])
        for number in numbers:
            self.readers[number] = self.readers.get(number, 0) + 1
        return *self.tape.call(rule, numbers, values, overwrite, self._line()), numbers[0]

    def _is_free(self, number) -> bool:
        """Whether nobody else has, or has read, the memory of a value."""
        if number <= 0 or self.readers.get(number) or not self.tape.nodes[number - 1].rule.fresh:
            return False
        return sum(memory == number for memory in self.memory.values()) == 1

    def _replaced(self, target, plain, number):
        """After an operation in place: the name means the new value, and other names of its memory nothing."""
        mark = target._ganfast
        if plain.shape != target.shape or plain.dtype != target.dtype:
            raise NoRuleError("it changes a shape or a dtype in place")
        memory = self.memory[mark.number]
        for other in self._alive():
            theirs = other._ganfast
            if other is not target and theirs.number is not None and self.memory[theirs.number] == memory:
                theirs.number = None
        target.data = plain
        self._mark(target, plain, number)
        return target

    def _native(self, function, args, kwargs, target):
        """By torch and its autograd, with a leaf for what depends on x."""
        if self.tape.start:
            raise NotMergedError(f"{functions.name_of(function)} has no rule, or lets samples see each other")
        result = function(*self._mapped(args, self._leaf), **self._mapped(kwargs, self._leaf))
        if target is None:
            return result
        mark = self.mark_of(result)
        return self._replaced(target, mark.plain, mark.number)

    def _leaf(self, tensor):
        """The handle itself stays out of autograd's graph, so that it is noticed if the critic keeps it."""
        mark = self.mark_of(tensor)
        if mark is None:
            return tensor
        leaf = mark.plain.detach().requires_grad_()
        leaf._ganfast = _OfIsland(self.key, mark.number, mark.plain, leaf._version)
        self.readers[mark.number] = self.readers.get(mark.number, 0) + 1
        return leaf

    def _constant(self, function, args, kwargs, target):
        if self.tape.start:
            raise NotMergedError("a part of it runs without gradients")
        if target is not None:
            raise NoRuleError("it changes in place, without gradients, what depends on x")
        return function(*self._mapped(args, self._plain), **self._mapped(kwargs, self._plain))

    def _plain(self, tensor):
        mark = self.mark_of(tensor)
        return tensor if mark is None else mark.plain

    def _mapped(self, value, change):
        """Arguments with their tensors changed."""
        if isinstance(value, Tensor):
            return change(value)
        if type(value) in (tuple, list):
            return type(value)(self._mapped(v, change) for v in value)
        return {k: self._mapped(v, change) for k, v in value.items()} if type(value) is dict else value

    def _beside(self, function, args, kwargs):
        """A call that has nothing to do with x."""
        if self.tape.start:
            self._check_rows(function, args, kwargs)
            if function in functions.RANDOM:
                raise NotMergedError("its forward draws random numbers")
            if any(a is c for a in args for c in self.counters):
                raise NotMergedError("its forward reads a number that it counts up")
            if function is Tensor.add_ and args[0].dim() == 0 and args[1:] == (1,):
                self.counters.append(args[0])  # BatchNorm counts batches: here they are three
                return function(args[0], 3)
            if functions.out_of_place(function, args, kwargs) is not None:
                raise NotMergedError("its forward writes to a tensor")
        return function(*args, **kwargs)

    def module(self, layer, x):
        """A layer with a rule of one's own."""
        if not torch.is_grad_enabled() or not self.live(x):
            return type(layer).forward(layer, x)
        self.__exit__(None, None, None)  # the rule's own calls are not the critic's
        try:
            plain, number, _ = self._taken(REGISTERED[type(layer)](layer), [x])
            return self.handle(plain, number)
        finally:
            self.__enter__()

    def _line(self):
        """Where the critic's code makes the call: (file, line)."""
        frame = sys._getframe(2) if self.lines else None
        while frame is not None and _is_ours(frame):
            frame = frame.f_back
        return None if frame is None else (frame.f_code.co_filename, frame.f_lineno)

    # --- the number of rows in a merged step --------------------------------------------------------------------------

    def _rows(self, tensor, found):
        if type(found) is torch.Size and self.tape.start and found[:1] == self.tape.batch and self.live(tensor):
            return torch.Size((_Rows(found[0]), *found[1:]))
        return found

    def _size(self, tensor, dim=None):
        shape = self._rows(tensor, tensor.shape)
        return shape if dim is None else shape[dim]

    def _check_rows(self, function, args, kwargs):
        if self.tape.start and function not in functions.SHAPES and _has_rows((args, tuple(kwargs.values()))):
            raise NotMergedError("its forward computes with the size of the batch")

    # --- the end ------------------------------------------------------------------------------------------------------

    def scores(self, result):
        """Of the first result, plain; the tape ends there."""
        scores = first(result)
        mark = self.mark_of(scores) if isinstance(scores, Tensor) else None
        if mark is None:
            self.tape.close(CONSTANT)
            return scores.detach() if isinstance(scores, Tensor) else scores
        if self.tape.start and mark.plain.shape[:1] != self.tape.batch:
            raise NotMergedError("it returns more scores than samples")
        self.tape.close(mark.number)
        return mark.plain

    def check_nothing_kept(self):
        """What the critic has kept of this pass (``self.features = h``) would have no gradient in its own loss."""
        if is_in_torch_dispatch_mode():  # which may hold what it has seen
            return
        for handle in self._alive():
            if handle._ganfast.number not in self.captured and handle._ganfast.key is self.key:
                raise NoRuleError("it keeps a tensor of its forward (self.features = h, or a hook that does)")


def _leaves(tensor) -> list:
    """What autograd made a tensor of."""
    leaves, stack, seen = [], [tensor.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is None:
            stack += [before for before, _ in node.next_functions]
        else:
            leaves.append(leaf)
    return leaves


def _has_rows(value) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_has_rows, value))
    return type(value) is _Rows


def _is_ours(frame) -> bool:
    return frame.f_globals.get("__name__", "").split(".")[0] in ("torch", "ganfast")


@contextlib.contextmanager
def _registered(critic, recorder):
    """Layers with rules of their own run by them."""
    found = []
    if REGISTERED and isinstance(critic, nn.Module):
        found = [m for m in critic.modules() if type(m) in REGISTERED and "forward" not in vars(m)]
    for layer in found:
        vars(layer)["forward"] = lambda x, layer=layer: recorder.module(layer, x)
    try:
        yield
    finally:
        for layer in found:
            del vars(layer)["forward"]
