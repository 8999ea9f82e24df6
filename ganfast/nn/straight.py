"""The torch.fx graph of a module's forward, where it is certain to be the same at every call."""

import ast
import functools
import inspect
import textwrap

import torch
from torch import Tensor, fx

from ganfast.nn.group import run_group

_STRAIGHT = (
    ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr, ast.Name,
    ast.Attribute, ast.Call, ast.keyword, ast.Constant, ast.Tuple, ast.List, ast.Subscript, ast.Slice, ast.Starred,
    ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context,
)  # fmt: skip


class Impossible(Exception):
    """Why there is no such graph, in words."""


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def is_leaf_module(self, m, module_qualified_name):
        return True

    def create_arg(self, a):
        if isinstance(a, Tensor):
            raise Impossible("its forward makes a tensor of its own")
        return super().create_arg(a)


def graph_of(module):
    """The fx graph of the module's forward; raises Impossible with the reason where it may differ between calls."""
    name = type(module).__name__
    function = None if "forward" in vars(module) else syntax(type(module).forward)
    if function is None:
        raise Impossible(f"the source of {name}.forward cannot be read")
    _check(function, module)
    try:
        graph = _Tracer().trace(module)
    except Impossible:
        raise
    except Exception as error:  # whatever a forward does with a proxy
        raise Impossible(f"torch.fx cannot trace {name}.forward: {str(error).strip().splitlines()[0]}") from error
    calls = [node for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.Call)]
    if len(calls) != sum(_is_call(node) for node in graph.nodes):
        raise Impossible(f"{name}.forward calls what torch.fx does not see")  # torch.rand(3): a constant to it
    for node in graph.nodes:
        node.type = None  # annotations
    if not graph.python_code("self").globals.keys() <= names().keys():
        raise Impossible(f"{name}.forward calls functions that are not torch's")
    return graph


def _is_call(node) -> bool:
    """Whether the node is a call in the source, too, and no operator, index or attribute."""
    if node.op == "call_function":
        return node.target is not getattr and node.target.__module__ != "_operator"
    return node.op in ("call_module", "call_method")


@functools.cache
def names() -> dict:
    """The globals that the code of a graph with groups may use."""
    graph = fx.Graph()
    graph.output(graph.call_function(run_group, ()))
    return graph.python_code("self").globals


@functools.cache
def syntax(forward):
    """The syntax tree of a plain ``def``, None for anything else."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(forward))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    return node if isinstance(node, ast.FunctionDef) and inspect.isfunction(forward) else None


def _check(function, module):
    """A forward of assignments and calls alone, of arguments, of torch and of what self has registered."""
    name = f"{type(module).__name__}.forward"
    arguments = function.args
    plain = not (function.decorator_list or arguments.vararg or arguments.kwarg) and all(
        isinstance(default, ast.Constant) for default in [*arguments.defaults, *arguments.kw_defaults] if default
    )
    if not (plain and arguments.args):
        raise Impossible(f"{name} is decorated, or takes *args, **kwargs or a computed default")
    me = arguments.args[0].arg
    body = [node for statement in function.body for node in ast.walk(statement)]
    local = {node.id for node in body if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {arg.arg for arg in [*arguments.posonlyargs, *arguments.args[1:], *arguments.kwonlyargs]}
    selves = {id(node.value) for node in body if isinstance(node, ast.Attribute) and _is_name(node.value, me)}
    registered = {*module._modules, *module._parameters, *module._buffers}
    for node in body:
        line = f"line {getattr(node, 'lineno', 0)} of {name}"
        if not isinstance(node, _STRAIGHT):
            raise Impossible(f"{line} is not straight: {type(node).__name__}")
        if isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            raise Impossible(f"{line} assigns to {ast.unparse(node)}")
        if isinstance(node, ast.Attribute) and id(node.value) in selves and node.attr not in registered:
            raise Impossible(f"{line} reads {ast.unparse(node)}, which may change")
        known = local if isinstance(node, ast.Name) and id(node) not in selves else None
        if known is not None and node.id not in known and not _is_torch(node.id, type(module).forward):
            raise Impossible(f"{line} uses {node.id}, which is not torch's")


def _is_name(node, name) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_torch(name, forward) -> bool:
    value = forward.__globals__.get(name)
    if inspect.ismodule(value):
        return value.__name__.split(".")[0] == "torch"
    home = getattr(value, "__module__", None) or ""
    return home.split(".")[0] == "torch" or (callable(value) and getattr(torch, name, None) is value)
