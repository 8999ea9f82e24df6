"""The activations: one row each, from which the reference, the kernels, the layers and the penalty's rules are made.

The expressions of a row are Python's, after assignments to local names if any ("s = sigmoid(z); s * z"), of

    z      the input                              y        the output, act(z)
    c      the cotangent that is multiplied       slope    the activation's only parameter, ``negative_slope``

with numbers, + − * / and the functions

    positive(x)         max(x, 0)                 tanh(x), sigmoid(x), erf(x), abs(x)
    exp_negative(x)     e^x for x ≤ 0             where(x < 0, a, b), where(x <= 0, a, b), where(x > 0, a, b)
    expm1_negative(x)   e^x − 1 for x ≤ 0
    log1p_unit(x)       log(1 + x), 0 ≤ x ≤ 1

A comparison is exact for numbers, but x < 0 may hold for −0.0, too; for nan it may be either. Each expression holds for
all finite z, without overflow on the way, and is nan where z is; a derivative where c is and act'(z) is not 0. This
module imports nothing of ganfast and no torch: setup.py reads it, too.
"""

import ast
import linecache
import math
import re
from dataclasses import dataclass, field


@dataclass(eq=False)
class Row:
    """One activation.

    formula          act(z)
    derivative       c·act'(z), in c and y where y tells it (with slope ≥ 0), else in c and z
    second           c·∂act'/∂y, or c·∂act'/∂z where the derivative is in z; "" for a piecewise linear activation, whose
                     second derivative is absent
    from_input       c·act'(z) in c and z, for any slope, where that takes less than y = act(z) first
    torch            act(z) by torch's own functions, where that is less than the formula
    torch_backward   the derivative by aten's functions, likewise
    layer, function  names in torch.nn and torch.nn.functional (also of the tensor's method), or ""
    options          the function's arguments after the first, and the layer's, with their defaults; values other than
                     these, but for negative_slope and inplace, make another activation
    common           whether compiled code has loops of its own for it; all others share one that branches inside
    """

    formula: str
    derivative: str
    second: str = ""
    from_input: str = ""
    torch: str = ""
    torch_backward: str = ""
    layer: str = ""
    function: str = ""
    options: dict = field(default_factory=dict)
    common: bool = False

    def __post_init__(self):
        self.from_output = not reads(self.derivative, "z")
        self.piecewise_linear = not self.second
        self.has_slope = reads(self.formula, "slope")
        self.fixed = {name: v for name, v in self.options.items() if name not in ("negative_slope", "inplace")}
        if not self.from_input:
            output = f"y = {self.formula}; " if reads(self.derivative, "y") else ""
            self.from_input = output + self.derivative


def reads(expression: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", expression) is not None


_CDF = "0.5 * (1 + erf(0.7071067811865476 * z))"

ROWS = {
    None: Row("z", "c"),
    "relu": Row(
        "positive(z)",
        "where(y <= 0, 0.0, c)",
        from_input="where(z <= 0, 0.0, c)",
        torch_backward="threshold_backward(c, y, 0)",
        layer="ReLU",
        function="relu",
        options={"inplace": False},
        common=True,
    ),
    "leaky_relu": Row(
        "where(z < 0, slope * z, z)",
        "where(y > 0, c, slope * c)",
        from_input="where(z > 0, c, slope * c)",
        torch="leaky_relu(z, slope)",
        torch_backward="leaky_relu_backward(c, y, slope, True)",
        layer="LeakyReLU",
        function="leaky_relu",
        options={"negative_slope": 0.01, "inplace": False},
        common=True,
    ),
    "tanh": Row(
        "tanh(z)",
        "c * (1 - y * y)",
        second="-2 * c * y",
        torch_backward="tanh_backward(c, y)",
        layer="Tanh",
        function="tanh",
        common=True,
    ),
    "sigmoid": Row(
        "sigmoid(z)",
        "c * y * (1 - y)",
        second="c * (1 - 2 * y)",
        torch_backward="sigmoid_backward(c, y)",
        layer="Sigmoid",
        function="sigmoid",
    ),
    "silu": Row(
        "z * sigmoid(z)",
        "s = sigmoid(z); c * s * (1 + z * (1 - s))",
        second="s = sigmoid(z); c * s * (1 - s) * (2 + z * (1 - 2 * s))",
        torch="silu(z)",
        torch_backward="silu_backward(c, z)",
        layer="SiLU",
        function="silu",
        options={"inplace": False},
    ),
    "gelu": Row(
        f"z * ({_CDF})",
        f"c * ({_CDF} + z * (0.3989422804014327 * exp_negative(-0.5 * z * z)))",
        second="e = exp_negative(-0.25 * z * z); t = z * e; 0.3989422804014327 * c * (2 * e * e - t * t)",
        torch="gelu(z)",
        torch_backward="gelu_backward(c, z)",
        layer="GELU",
        function="gelu",
        options={"approximate": "none"},
    ),
    "softplus": Row(
        "positive(z) + log1p_unit(exp_negative(-abs(z)))",
        "-c * expm1_negative(-y)",
        second="c * exp_negative(-y)",
        from_input="c * sigmoid(z)",
        torch="softplus(z)",
        layer="Softplus",
        function="softplus",
        options={"beta": 1, "threshold": 20},
    ),
    "scaled_leaky_relu": Row(  # StyleGAN's: √2·leaky_relu keeps the variance about as it is
        "1.4142135623730951 * where(z < 0, slope * z, z)",
        "1.4142135623730951 * where(y > 0, c, slope * c)",
        from_input="1.4142135623730951 * where(z > 0, c, slope * c)",
        torch="1.4142135623730951 * leaky_relu(z, slope)",
        torch_backward="1.4142135623730951 * leaky_relu_backward(c, y, slope, True)",
    ),
}


def calls(expression: str) -> set:
    """The functions that the expression calls."""
    return {node.func.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Call)}


def listed(names=None) -> str:
    """The names as an error message lists them."""
    names = ROWS if names is None else names
    return ", ".join(repr(name) for name in names if name is not None) + " or None"


def check(activation, slope, name="activation", slope_name="negative_slope"):
    """ValueError or TypeError that names the argument."""
    if activation not in ROWS:
        raise ValueError(f"{name}: got {activation!r}, needs one of {listed()}")
    if not isinstance(slope, (int, float)):
        raise TypeError(f"{slope_name}: got {type(slope).__name__}, needs a number")
    if not math.isfinite(slope):
        raise ValueError(f"{slope_name}: got {slope}, needs a finite number")


# --- code from expressions --------------------------------------------------------------------------------------------


def python(expression: str, indent: str, spelled=None) -> str:
    """The lines of Python that return the expression; ``spelled``: names of its functions there."""
    tree = _Renamed(spelled or {}).visit(ast.parse(expression))
    *steps, result = [ast.unparse(statement) for statement in tree.body]
    return "".join(f"{indent}{line}\n" for line in (*steps, f"return {result}"))


class _Renamed(ast.NodeTransformer):
    def __init__(self, spelled):
        self.spelled = spelled

    def visit_Name(self, node):
        return ast.Name(self.spelled.get(node.id, node.id), node.ctx)


def define(source: str, file: str, space: dict) -> None:
    """Runs generated Python in ``space``; inspect.getsource, which Triton calls, and tracebacks find its text."""
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    exec(compile(source, file, "exec"), space)


_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_CPP = {"abs": "vabs", "tanh": "vtanh", "erf": "verf"}  # csrc/cpu/vec.h's where the C library has the name


def cpp() -> str:
    """The header of csrc/cpu: an enum, the names in its order, and ``of(z)`` and ``pull(c, z)`` of each activation."""
    codes = [str(name).upper() for name in ROWS]
    lines = [
        "// Written by setup.py from ganfast/activations.py.",
        "#pragma once",
        '#include "cpu/vec.h"',
        "namespace ganfast {",
        f"enum Activation : int {{ {', '.join(codes)} }};",
        f'constexpr const char* ACTIVATIONS = "{" ".join(map(str, ROWS))}";',
        "template <int ACT> struct Act;",
    ]
    for code, row in zip(codes, ROWS.values()):
        lines += [
            f"template <> struct Act<{code}> {{",
            *_member("of(vfloat z, float slope)", row.formula),
            *_member("pull(vfloat c, vfloat z, float slope)", row.from_input),
            "};",
        ]
    for macro, common in (("GANFAST_COMMON", True), ("GANFAST_RARE", False)):
        chosen = [code for code, (name, row) in zip(codes, ROWS.items()) if name and row.common is common]
        lines.append(f"#define {macro}(DO) {' '.join(f'DO({code})' for code in chosen)}")
    return "\n".join([*lines, "}  // namespace ganfast", ""])


def _member(head, expression):
    *steps, result = ast.parse(expression).body
    yield f"  GANFAST_INLINE vfloat {head} {{"
    for step in steps:
        yield f"    const vfloat {step.targets[0].id} = {_cpp(step.value)};"
    yield f"    return {_cpp(result.value)};"
    yield "  }"


def _cpp(node) -> str:
    """An expression in the words of csrc/cpu/vec.h; masks are of sign bits, as comparisons of 64 bytes are slow."""
    match node:
        case ast.Constant():
            return f"{float(node.value)!r}f"
        case ast.Name():
            return node.id
        case ast.UnaryOp(op=ast.USub()):
            return f"(-{_cpp(node.operand)})"
        case ast.BinOp() if type(node.op) in _SIGNS:
            return f"({_cpp(node.left)} {_SIGNS[type(node.op)]} {_cpp(node.right)})"
        case ast.Compare(ops=[kind], comparators=[ast.Constant(value=0)]):
            mask = {ast.Lt: "negative", ast.LtE: "not_positive", ast.Gt: "~not_positive"}[type(kind)]
            return f"{mask}({_cpp(node.left)})"
        case ast.Call(func=ast.Name(id="where")):
            mask, *values = node.args
            values = [f"splat({_cpp(v)})" if isinstance(v, ast.Constant) else _cpp(v) for v in values]
            return f"select({_cpp(mask)}, {', '.join(values)})"
        case ast.Call():
            return f"{_CPP.get(node.func.id, node.func.id)}({', '.join(map(_cpp, node.args))})"
    raise ValueError(f"no C++ for {ast.unparse(node)}")
