"""A critic as a list of calls with rules: a walk over a Sequential, torch.fx for anything else."""

import functools
import operator
import random
import sys
import weakref
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ganfast.nn import FusedSequential, mixes_samples
from ganfast.penalty.layers import Affine, Conv, LeakyReLU, Reshape
from ganfast.penalty.rules import TABLE, NoRuleError, Rule, Size
from ganfast.penalty.table import VIEWS, function_rule


def uncompiled(function):
    """As torch.compiler.disable, which loads torch's compiler: only where that is at work already."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call


_PROGRAMS = weakref.WeakKeyDictionary()
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass
class Node:
    """y = rule(inputs): numbers of values; 0 is the critic's first argument, then come the other ones."""

    rule: Rule
    inputs: list
    output: int
    overwrite: bool = False  # the input's memory may hold the output


@dataclass
class Program:
    """A critic of ``arguments`` arguments; ``output`` is the number of its result, or a list of them."""

    nodes: list
    arguments: int
    output: object
    mixes: bool  # samples see each other, whatever the rules say
    merges: bool = field(init=False)  # one call may serve several batches
    flat: bool = field(init=False)  # and all is piecewise linear
    channels_last: bool = field(init=False)  # convolutions, and nothing that might ask for another order in memory
    measured: dict = field(default_factory=dict)  # a call → whether torch's double backward was faster (choice.py)

    def __post_init__(self):
        rules = [node.rule for node in self.nodes]
        maker, readers = {node.output: node.rule for node in self.nodes}, {}
        for node in self.nodes:
            for i in node.inputs:
                readers.setdefault(i, []).append(node.rule)
        results = [self.output] if isinstance(self.output, int) else self.output
        for node in self.nodes:
            if isinstance(node.rule, LeakyReLU):
                i, read = node.inputs[0], readers.get(node.output, [])
                node.overwrite = i in maker and maker[i].fresh and len(readers[i]) == 1 and i not in results
                node.rule.spends = len(read) == 1 and isinstance(read[0], Affine)
        one = self.arguments == 1 and isinstance(self.output, int)
        self.merges = one and not self.mixes and all(n.rule.merges and not _counts(n, readers) for n in self.nodes)
        self.flat = self.merges and not any(rule.curved for rule in rules)
        self.channels_last = any(isinstance(rule, Conv) for rule in rules) and all(map(_any_order, rules))


def _counts(node, readers):
    """Whether a size is more than part of a shape: the batch's own would be another in a merged step."""
    shapes = (Reshape, Size)
    return isinstance(node.rule, Size) and not all(isinstance(r, shapes) for r in readers.get(node.output, []))


def _any_order(rule):
    """Whether a rule takes samples in any order in memory: torch's layers and ours do, others may not."""
    owner = getattr(rule, "module", None) or getattr(rule, "function", None)
    made_by = [type(rule), *([type(owner)] if isinstance(owner, nn.Module) else [])]
    return all(kind.__module__.split(".")[0] in ("torch", "ganfast") for kind in made_by)


def program_of(critic: nn.Module, inputs=()) -> Program:
    """The critic's program, made once for each structure; raises NoRuleError that names what has no rule.

    ``inputs`` are its further arguments, of which None, numbers and words are part of the program.
    """
    if torch.compiler.is_compiling() or type(critic) in TABLE:
        _check_calls(critic)
        return _walk(critic)
    modules = [module for _, module in critic.named_modules(remove_duplicate=False)]
    inputs = [i if type(i) in (*PLAIN, type(None)) else _GIVEN for i in inputs]
    key = (inputs, *((id(m), type(m), _facts(m)) for m in modules))
    known = _PROGRAMS.get(critic)
    if known is None or known[0] != key:
        known = _PROGRAMS[critic] = (key, _make(critic, inputs))
    if isinstance(known[1], str):
        raise NoRuleError(known[1])  # a new one: its traceback holds the frames of this call alone
    return known[1]


_GIVEN = object()  # an argument that each call brings
PLAIN = (bool, int, float, str)
_OF_MODULES = frozenset(vars(nn.Module())) - {"training"}


def _facts(module) -> list:
    """What a forward may read of a module besides tensors and modules: numbers, words, functions, hooks."""
    own = vars(module)
    facts = [v if type(v) in PLAIN else _fact(v) for name, v in own.items() if name not in _OF_MODULES]
    return facts + [len(own[hooks]) for hooks in _HOOKS]


def _fact(value):
    if type(value) in PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        return [v if type(v) in PLAIN else _fact(v) for v in value]
    if isinstance(value, dict):
        return [(_fact(k), _fact(v)) for k, v in value.items()]
    return None if isinstance(value, Tensor) else id(value)


def _check_calls(critic):
    """What happens at a call besides the forward of the module's class has no rule."""
    for module in critic.modules():
        hooks = [hook for kind in _HOOKS for hook in getattr(module, kind).values()]
        if not all(isinstance(hook, (SpectralNorm, WeightNorm)) for hook in hooks):
            raise NoRuleError(f"{type(module).__name__} with hooks")
        if "forward" in vars(module):
            raise NoRuleError(f"{type(module).__name__} with a forward of its own")


def _make(critic, inputs):
    """The critic's program, or the layer that has no rule, in words."""
    try:
        _check_calls(critic)
        return _trace(critic, inputs) if inputs or not walks(critic) else _walk(critic)
    except NoRuleError as error:
        return str(error)


def walks(critic: nn.Module) -> bool:
    """Whether the critic is a plain nn.Sequential of layers with rules."""
    return all(_plain_type(leaf) in TABLE for leaf in _leaves(critic))


def _leaves(module):
    """The modules that a walk meets."""
    if type(module) in (nn.Sequential, FusedSequential):
        return [leaf for child in module for leaf in _leaves(child)]
    return [module]


def _plain_type(module) -> type:
    """The class of a module, seen through its parametrizations."""
    return type(module).__mro__[1] if nn.utils.parametrize.is_parametrized(module) else type(module)


def rules_of(module: nn.Module) -> list:
    """The rules of a layer, to be run one after another."""
    layer = _plain_type(module)
    if layer not in TABLE:
        raise NoRuleError(layer.__name__)
    rules = TABLE[layer](module)
    return rules if isinstance(rules, list) else [rules]


def _walk(critic):
    nodes, at = [], 0
    for module in _leaves(critic):
        for rule in rules_of(module):
            nodes.append(Node(rule, [at], at + 1))
            at += 1
    return Program(nodes, 1, at, mixes_samples(critic))


# --- torch.fx ---------------------------------------------------------------------------------------------------------


def _in_place(plain):
    def call(self, other):
        result = plain(self, other)
        result.node.meta["in_place"] = True
        return result

    return call


class _Proxy(fx.Proxy):
    """torch.fx takes ``h += x`` for ``h = h + x``, whoever else has h; here that is noted."""

    __iadd__, __isub__ = _in_place(operator.add), _in_place(operator.sub)
    __imul__, __itruediv__ = _in_place(operator.mul), _in_place(operator.truediv)


def _modes():
    """What a ``with`` in a forward may change, and torch.fx does not note."""
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return torch.is_grad_enabled(), depth


class _Tracer(fx.Tracer):
    def __init__(self, inputs):
        super().__init__()
        self.modes, self.arguments, self.given = _modes(), [_GIVEN, *inputs], []

    def create_proxy(self, kind, target, args, kwargs, *rest, **more):
        """An argument that the critic is called without is its default."""
        if kind != "placeholder" or target.startswith("*"):
            return super().create_proxy(kind, target, args, kwargs, *rest, **more)
        n = len(self.given)
        value = self.arguments[n] if n < len(self.arguments) else args[0] if args else _GIVEN
        self.given.append(value is _GIVEN)
        return super().create_proxy(kind, target, args, kwargs, *rest, **more) if value is _GIVEN else value

    def create_node(self, *args, **kwargs):
        if _modes() != self.modes:
            raise ValueError("its forward turns gradients or autocast on or off")
        return super().create_node(*args, **kwargs)

    def proxy(self, node):
        return _Proxy(node, self)

    def is_leaf_module(self, module, name):
        return _plain_type(module) in TABLE or super().is_leaf_module(module, name)

    def create_arg(self, a):
        if isinstance(a, Tensor):
            held = [*self.root.parameters(), *self.root.buffers(), *self.tensor_attrs]
            if not any(a is h for h in held):
                raise ValueError("its forward makes a tensor, which would stay the same")
        return super().create_arg(a)


def _random_states():
    states = [random.getstate(), torch.get_rng_state().tolist()]
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        states.append((kind, keys.tolist(), *rest))
    return states


class _Held(Rule):
    """A parameter or buffer of the critic itself."""

    def __init__(self, critic, path):
        self.critic, self.path = weakref.ref(critic), path  # the critic is a weak key of _PROGRAMS

    def _tensor(self):
        found = self.critic()
        for name in self.path.split("."):
            found = getattr(found, name)
        return found

    def weights(self):
        found = self._tensor()
        return (found,) if isinstance(found, Tensor) and found.requires_grad else ()

    def forward(self, run, values, weights, overwrite):
        return (weights[0].detach() if weights else self._tensor()), None

    def adjoint(self, saved, p, d, ts, need, start=0, below=True):
        return (), (p,)


def _trace(critic, inputs):
    before, arguments = _random_states(), 1 + len(inputs)
    try:
        with torch.enable_grad():
            tracer = _Tracer(inputs)
            graph = tracer.trace(critic)
        if _random_states() != before:
            raise ValueError("its forward draws random numbers, which would stay the same")
    except Exception as error:  # whatever the critic's own code raises when it meets a proxy
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NoRuleError(f"{type(critic).__name__}, which torch.fx cannot trace ({reason})") from error
    if len(tracer.given) < arguments:
        raise NoRuleError(f"{type(critic).__name__}, which takes {len(tracer.given)} arguments, not {arguments}")
    numbers, nodes, count, output, sizes = {}, [], arguments, None, set()
    placeholders = iter(n for n, given in enumerate(tracer.given) if given)
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.target.startswith("*"):
                raise NoRuleError(f"{type(critic).__name__} with arguments {node.target}")
            numbers[node] = next(placeholders)
            if numbers[node] >= arguments:
                raise NoRuleError(f"{type(critic).__name__} with the argument {node.name!r} left out")
        elif node.op == "output":
            output = _output(node, numbers, critic)
        else:
            if not node.args and "input" in node.kwargs:
                node.kwargs, node.args = _without(node.kwargs, "input"), (node.kwargs["input"],)
            _check_in_place(critic, node)
            inputs = [numbers[i] for i in (node.args if node.op == "call_module" else node.all_input_nodes)]
            for rule in _rules(critic, node, sizes):
                nodes.append(Node(rule, inputs, count))
                if isinstance(rule, Size):
                    sizes.add(node)
                inputs, numbers[node] = [count], count
                count += 1
    return Program(nodes, arguments, output, mixes_samples(critic))


def _without(kwargs, name):
    return {k: v for k, v in kwargs.items() if k != name}


def _check_in_place(critic, node):
    """What works in place changes its input, and what that is a view of, for all who read it again."""
    layer = critic.get_submodule(node.target) if node.op == "call_module" else None
    noted = node.meta.get("in_place") or node.kwargs.get("inplace") or node.target is F.relu_
    if not (noted or getattr(layer, "inplace", False)):
        return
    changed = node.args[0]
    while isinstance(changed, fx.Node):
        if len(changed.users) > 1:
            raise NoRuleError(f"{node.name} in place, over an input that is used again")
        layer = type(critic.get_submodule(changed.target)) if changed.op == "call_module" else changed.target
        changed = changed.args[0] if layer in VIEWS else None


def _output(node, numbers, critic):
    result = node.args[0]
    if isinstance(result, fx.Node):
        return numbers[result]
    if isinstance(result, (tuple, list)) and all(isinstance(r, fx.Node) for r in result):
        return [numbers[r] for r in result]
    raise NoRuleError(f"{type(critic).__name__}, whose result is neither a tensor nor a tuple of tensors")


def _rules(critic, node, sizes):
    if node.op == "get_attr":
        return [_Held(critic, node.target)]
    if node.op == "call_module":
        if node.kwargs or not all(isinstance(a, fx.Node) for a in node.args):
            raise NoRuleError(f"{node.target} called with more than tensors")
        return rules_of(critic.get_submodule(node.target))
    if node.all_input_nodes and all(i in sizes for i in node.all_input_nodes):
        return [Size(_bound(node))]
    places = []
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), places.append)  # append gives None
    return [function_rule(node.target, _bound(node), args, kwargs, len(node.all_input_nodes), len(places))]


_VIEWS = {"view": "reshape", "view_as": "reshape_as"}  # the order in memory may be another than the critic's own


def _bound(node):
    """The call as a function of its inputs alone."""
    inputs = node.all_input_nodes

    def call(*values):
        given = dict(zip(inputs, values))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), given.__getitem__)
        if node.op == "call_method":
            return getattr(args[0], _VIEWS.get(node.target, node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)

    return call
