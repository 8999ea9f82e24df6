"""How ``ganfast.fuse`` rewrites one module."""

import ast
import functools

import torch
import torch.nn.functional as F
from torch import nn

from ganfast import activations
from ganfast.nn.chain import FusedSequential
from ganfast.nn.fused_group import ACTIVATIONS, LAYERS, group_at, is_activation, obstacle, run_group
from ganfast.nn.norm_group import norm_at, norm_obstacle, run_norm
from ganfast.nn.straight_line import NotStraightLine, graph_of, names, syntax

_METHODS = {row.function: name for name, row in activations.ROWS.items() if row.function}
_FUNCTIONS = {getattr(home, key): name for home in (F, torch) for key, name in _METHODS.items() if hasattr(home, key)}


def fuse(module, reason=None):
    """Takes over the module's forward where that helps; (name, what was found, why left alone) per convolution.

    Those are the convolutions that this forward has to call, and each InstanceNorm2d that has none in front and fuses.
    ``reason`` leaves all of them alone.
    """
    if isinstance(module, _Adopted):
        module.__class__ = module._plain
    sequential = type(module).forward in (nn.Sequential.forward, FusedSequential.forward)
    if "forward" in vars(module):
        reason = "the module has a forward set on it"
    if reason:
        return _all_left(module, reason)
    return _fuse_sequential(module) if sequential else _fuse_forward(module)


def _plain(module):
    """Its class before it was fused."""
    return getattr(type(module), "_plain", type(module))


# --- Sequentials ------------------------------------------------------------------------------------------------------


def _fuse_sequential(module):
    layers, rows = list(module), []
    for i, (name, layer) in enumerate(module._modules.items()):
        convolves = _is_convolution(layer)
        norm, act, size = norm_at(layers, i + convolves)
        if size and (convolves or not (i and _is_convolution(layers[i - 1]))):
            rows.append((name, _found(layer if convolves else None, norm, act), norm_obstacle(norm, act)))
        if size or not convolves:
            continue
        bn, act, size = group_at(layers, i)
        following = layers[i + 1] if i + 1 < len(layers) else None
        reason = obstacle(layer, bn, act) or (_alone(following) if size == 1 else "")
        rows.append((name, _found(layer, bn, act), reason))
    if any(not reason for _, _, reason in rows) and not isinstance(module, FusedSequential):
        plain = type(module)
        module.__class__ = FusedSequential if plain is nn.Sequential else _adopted(plain, None)
    return rows


def _alone(following) -> str:
    """Why a convolution has nothing to be fused with."""
    if following is None:
        return "nothing follows it"
    found = following if type(following) in ACTIVATIONS else type(following).__name__  # with its options
    return f"{found} follows, which is none of BatchNorm2d, InstanceNorm2d, {LAYERS}"


def _is_convolution(module) -> bool:
    name, home = type(module).__name__, type(module).__module__  # torch's quantised ones are no subclasses of Conv2d
    return isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) or (
        home.startswith("torch.") and "Conv" in name and "2d" in name
    )


def _found(*parts) -> str:
    return " + ".join(part[0] if isinstance(part, tuple) else type(part).__name__ for part in parts if part is not None)


def _convolutions(module, prefix=""):
    """name → convolution, of those that the module's own forward has to call: its children, also in ModuleLists."""
    found = {}
    for name, child in module.named_children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            found |= _convolutions(child, f"{prefix}{name}.")
        elif _is_convolution(child):
            found[prefix + name] = child
    return found


def _all_left(module, reason):
    return [(name, _found(conv), reason) for name, conv in _convolutions(module).items()]


def taken_apart(module) -> dict:
    """Those child Sequentials that the module's forward only indexes or iterates, with that as the reason."""
    children = [(name, child) for name, child in module.named_children() if isinstance(child, nn.Sequential)]
    function = syntax(_plain(module).forward) if children else None
    if function is None:
        return {}
    nodes = list(ast.walk(function))
    parts = [node.value for node in nodes if isinstance(node, ast.Subscript)]
    parts += [part for node in nodes if isinstance(node, (ast.For, ast.comprehension)) for part in ast.walk(node.iter)]
    whole = {node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}
    apart = {node.attr for node in parts if isinstance(node, ast.Attribute)} - whole
    reason = f"{type(module).__name__}.forward takes the Sequential apart"
    return {child: reason for name, child in children if name in apart}


# --- modules whose forward calls a convolution by attribute -----------------------------------------------------------


def _fuse_forward(module):
    """Rewrites the module's forward, from its graph, where it is the same at every call."""
    convolutions = _convolutions(module)
    if not convolutions and not any(type(child) is nn.InstanceNorm2d for child in module.children()):
        return []
    try:
        graph = graph_of(module)
    except NotStraightLine as reason:
        return _all_left(module, str(reason))
    modules = dict(module.named_modules(remove_duplicate=False))
    rows, with_norm = _fuse_norms(graph, modules)
    for name, conv in convolutions.items():
        nodes = [node for node in graph.nodes if node.op == "call_module" and modules[node.target] is conv]
        groups = [_group(node, modules) for node in nodes]  # before any is replaced
        if not groups:
            rows.append((name, _found(conv), f"{type(module).__name__}.forward does not call it"))
        for node, (bn, act, reason) in zip(nodes, groups):
            if node in with_norm:
                continue
            parts = [conv, bn and modules[bn.target], _activation(act, modules) if act else None]
            rows.append((name, _found(*parts), obstacle(*parts) or reason))
            if not rows[-1][2]:
                _replace(graph, run_group, (node, bn), act, modules)
    if any(not reason for _, _, reason in rows):
        module.__class__ = _adopted(type(module), graph.python_code("self").src)
    return rows


def _fuse_norms(graph, modules):
    """Each InstanceNorm2d and its activation become a call of run_norm: (rows, nodes of convolutions in front)."""
    rows, convolutions = [], set()
    for node in list(graph.nodes):
        if node.op != "call_module" or type(modules[node.target]) is not nn.InstanceNorm2d or len(node.args) != 1:
            continue
        before, act = node.args[0], next(iter(node.users)) if len(node.users) == 1 else None
        act = None if act is None or _activation(act, modules) is None else act
        parts = [modules[node.target], _activation(act, modules) if act else None]
        name = node.target
        if before.op == "call_module" and _is_convolution(modules[before.target]) and len(before.users) == 1:
            convolutions.add(before)
            name = before.target
        found = [modules[before.target]] if before in convolutions else []
        rows.append((name, _found(*found, *parts), norm_obstacle(*parts)))
        if not rows[-1][2]:
            _replace(graph, run_norm, (node,), act, modules)
    return rows, convolutions


def _group(conv, modules):
    """(bn, act, reason): the nodes behind a convolution's node that go with it, or why there are none."""
    if len(conv.args) != 1 or conv.kwargs:
        return None, None, "it is called with more than one argument"
    if len(conv.users) != 1:
        return None, None, f"its output is used {len(conv.users)} times"
    bn = next(iter(conv.users))
    if not (bn.op == "call_module" and type(modules[bn.target]) is nn.BatchNorm2d and bn.args == (conv,)):
        bn = None
    elif _called_between(conv, bn, modules):
        return None, None, "its BatchNorm2d is called for something else in between"
    tail = bn or conv
    act = next(iter(tail.users)) if len(tail.users) == 1 else None
    if act is not None and _activation(act, modules) is None:
        act = None
    return bn, act, "" if bn or act else f"none of BatchNorm2d, {LAYERS} follows it"


def _called_between(conv, bn, modules) -> bool:
    """Whether the norm sees another batch between the nodes: its running statistics depend on the order."""
    node = conv.next
    while node is not bn:
        if node.op == "call_module" and modules[bn.target] in set(modules[node.target].modules()):
            return True
        node = node.next
    return False


def _activation(node, modules):
    """The activation that the node calls, in the form run_group takes; None where it is none."""
    if node.op == "output" or not node.args:
        return None
    if node.op == "call_module":
        module = modules[node.target]
        return module if is_activation(module) and len(node.args) == 1 and not node.kwargs else None
    if node.op not in ("call_method", "call_function"):
        return None
    name = (_METHODS if node.op == "call_method" else _FUNCTIONS).get(node.target)
    if name is None:
        return None
    row = activations.ROWS[name]
    options = row.options | dict(zip(row.options, node.args[1:])) | node.kwargs
    slope, inplace = options.get("negative_slope", 0.0), options.get("inplace", False)
    if not isinstance(slope, (int, float)) or any(options[k] != v for k, v in row.fixed.items()):
        return None
    return name, slope, inplace


def _replace(graph, function, nodes, act, modules):
    """One call of run_group or run_norm in place of nodes of modules and of the activation after them."""
    first, *_ = called = [node for node in nodes if node]
    with graph.inserting_before(first):  # the others' only input is its output, so they can come forward
        arguments = [first.args[0], *(node and graph.get_attr(node.target) for node in nodes), None]
        if act:
            arguments[-1] = graph.get_attr(act.target) if act.op == "call_module" else _activation(act, modules)
        group = graph.call_function(function, tuple(arguments))
    called = [*called, *([act] if act else [])]
    called[-1].replace_all_uses_with(group)
    for node in reversed(called):
        graph.erase_node(node)


# --- a module's class, with another forward ---------------------------------------------------------------------------


class _Adopted:
    """In front of a module's own class, in a class made by :func:`_adopted`, so that it can be copied and pickled."""

    def __reduce_ex__(self, protocol):
        _, _, *state = super().__reduce_ex__(max(protocol, 2))
        return (_restored, (self._plain, self._source), *state)


@functools.cache
def _adopted(plain, source):
    """A subclass of ``plain``, alike in name, whose forward is ``source``; without it, as FusedSequential's."""
    body = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
    body |= {"_plain": plain, "_source": source}
    if source is None:
        return type(plain)(plain.__name__, (_Adopted, FusedSequential, plain), body)
    space = dict(names())
    exec(compile(source, f"<ganfast.fuse of {plain.__qualname__}.forward>", "exec"), space)
    return type(plain)(plain.__name__, (_Adopted, plain), body | {"forward": space["forward"]})


def _restored(plain, source):
    adopted = _adopted(plain, source)
    return adopted.__new__(adopted)
