"""Straight-line tracing: the torch.fx graph of a module's forward that has no control flow and reads no state.

Only then is the graph certain to be the same in every call; the source of the forward is checked for it.
"""

import ast
import functools
import inspect
import operator
import textwrap

import torch
from torch import Tensor, fx

from ganfast.nn.fused_group import run_group
from ganfast.nn.norm_group import run_norm

_STRAIGHT_LINE = (
    ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr, ast.Name,
    ast.Attribute, ast.Call, ast.keyword, ast.Constant, ast.Tuple, ast.List, ast.Subscript, ast.Slice, ast.Starred,
    ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context,
)  # fmt: skip


class NotStraightLine(Exception):
    """The forward cannot be traced as straight-line code; the message says why."""


def in_place(name, a, b):
    """``a += b`` and the like, by the name of operator's function: "iadd"."""
    return getattr(operator, name)(a, b)


class _InPlace:
    """A proxy that records ``a += b``; torch.fx would record ``a = a + b``, another tensor and maybe another dtype."""

    def __getattr__(self, name):
        return _Attribute(self, name)


class _Proxy(_InPlace, fx.Proxy):
    pass


class _Attribute(_InPlace, fx.proxy.Attribute):
    pass


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"):
    setattr(
        _InPlace,
        f"__{_name}__",
        lambda a, b, name=_name: a.tracer.create_proxy("call_function", in_place, (name, a, b), {}),
    )


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def proxy(self, node):
        return _Proxy(node, self)

    def is_leaf_module(self, m, module_qualified_name):
        return True

    def create_arg(self, a):
        if isinstance(a, Tensor):
            raise NotStraightLine("its forward makes a tensor that torch.fx would keep")
        return super().create_arg(a)


def graph_of(module):
    """The fx graph of the module's forward; raises NotStraightLine where it may differ between calls."""
    name = type(module).__name__
    function = None if "forward" in vars(module) else syntax(type(module).forward)
    if function is None:
        raise NotStraightLine(f"the source of {name}.forward cannot be read")
    _check(function, module)
    try:
        graph = _Tracer().trace(module)
    except NotStraightLine:
        raise
    except Exception as error:  # anything that a forward may do with a proxy
        words = str(error).strip() or type(error).__name__
        raise NotStraightLine(f"torch.fx cannot trace {name}.forward: {words.splitlines()[0]}") from error
    calls = [node for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.Call)]
    if len(calls) != sum(_is_call(node) for node in graph.nodes):
        raise NotStraightLine(f"{name}.forward calls what torch.fx does not see")  # torch.rand(3): a constant to it
    for node in graph.nodes:
        node.type = None  # annotations
    if not graph.python_code("self").globals.keys() <= names().keys() | {"getattr"}:
        raise NotStraightLine(f"{name}.forward calls functions that are not torch's")
    return graph


def _is_call(node) -> bool:
    """Whether the node is a call in the source too, not an operator, index or attribute."""
    if node.op == "call_function":
        return node.target not in (getattr, in_place) and getattr(node.target, "__module__", None) != "_operator"
    return node.op in ("call_module", "call_method")


@functools.cache
def names() -> dict:
    """The globals that the code of a graph with fused groups may use."""
    graph = fx.Graph()
    graph.output(tuple(graph.call_function(function, ()) for function in (run_group, run_norm, in_place)))
    return graph.python_code("self").globals


@functools.cache
def syntax(forward):
    """The syntax tree of a forward that is a plain ``def``, else None."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(forward))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    return node if isinstance(node, ast.FunctionDef) and inspect.isfunction(forward) else None


def _check(function, module):
    """Raises unless the forward is assignments and calls, of its arguments, torch and what self has registered."""
    name, arguments = f"{type(module).__name__}.forward", function.args
    computed = any(
        default and not isinstance(default, ast.Constant) for default in [*arguments.defaults, *arguments.kw_defaults]
    )
    decorated = function.decorator_list or hasattr(type(module).forward, "__wrapped__")  # the source is the inner one's
    if decorated or arguments.vararg or arguments.kwarg or computed or not arguments.args:
        raise NotStraightLine(f"{name} is decorated, or takes *args, **kwargs or a computed default")
    body = [node for statement in function.body for node in ast.walk(statement)]
    me = arguments.args[0].arg
    mine = {id(node.value): node for node in body if isinstance(node, ast.Attribute) and _is_name(node.value, me)}
    called = {id(part) for node in body if isinstance(node, ast.Call) for part in ast.walk(node.func)}
    local = {node.id for node in body if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {arg.arg for arg in [*arguments.posonlyargs, *arguments.args[1:], *arguments.kwonlyargs]}
    for node in body:
        fault = None
        if not isinstance(node, _STRAIGHT_LINE):
            fault = f"is more than calls and assignments ({type(node).__name__})"
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            fault = f"assigns to {ast.unparse(node)}"
        elif isinstance(node, ast.Name) and id(node) not in mine and node.id not in local:
            fault = None if _is_torch(node.id, type(module).forward) else f"uses {node.id}, which is not torch's"
        elif isinstance(node, ast.Attribute) and id(node.value) in mine:
            fault = _fault_of_own(node, module, id(node) in called)
        if fault or (isinstance(node, ast.Name) and node.id == me and id(node) not in mine):
            raise NotStraightLine(f"line {getattr(node, 'lineno', 0)} of {name} {fault or f'uses {me} as a whole'}")


def _fault_of_own(node, module, called):
    """Why this attribute of self may not be read, or None."""
    if node.attr not in {*module._modules, *module._parameters, *module._buffers}:
        return f"reads {ast.unparse(node)}, which may change"
    if node.attr in module._modules and not called:
        return f"does not call {ast.unparse(node)} but hands it on"
    return None


def _is_name(node, name) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_torch(name, forward) -> bool:
    value = forward.__globals__.get(name)
    if inspect.ismodule(value):
        return value.__name__.split(".")[0] == "torch"
    home = getattr(value, "__module__", None) or ""
    return home.split(".")[0] == "torch" or (callable(value) and getattr(torch, name, None) is value)
