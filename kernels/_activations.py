"""Activations in Triton, generated from ganfast/activations.py; fp32, ACT is the name of a row or None.

activate(z, slope, ACT)      act(z)
through(c, y, slope, ACT)    c·act'(z) from y = act(z), slope ≥ 0; only rows whose derivative is in y
sloped(c, z, slope, ACT)     c·act'(z)
"""

import triton
import triton.language as tl

from ganfast import activations


@triton.jit
def positive(x):
    return tl.maximum(x, tl.zeros_like(x), propagate_nan=tl.PropagateNan.ALL)  # of halves: two at a time


@triton.jit
def tanh(z):
    x = tl.abs(z)
    e = tl.exp(-2.0 * x)
    s = x * x
    series = x + x * s * (-0.33333334 + s * (0.13333334 + s * (-0.053968254 + s * 0.021869488)))
    t = tl.where(x < 0.3, series, (1.0 - e) / (1.0 + e))
    return tl.where(z < 0, -t, t)


@triton.jit
def sigmoid(z):
    e = tl.exp(-tl.abs(z))
    return tl.where(z < 0, e, 1.0) / (1.0 + e)


@triton.jit
def expm1_negative(x):
    series = x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * (0.008333334 + x * 0.0013888889)))))
    return tl.where(x > -0.25, series, tl.exp(x) - 1.0)


@triton.jit
def log1p_unit(x):
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.log(u) * (x / (u - 1.0)))  # exact for small x too


SPELLED = {"exp_negative": "tl.exp", "erf": "tl.erf", "abs": "tl.abs", "where": "tl.where"}


def _source(name, arguments, expressions) -> str:
    """A function that returns the expression of ACT; of another ACT but None it does not compile."""
    text = f"@triton.jit\ndef {name}({arguments}, slope, ACT: tl.constexpr):\n    if ACT is None:\n"
    text += f"        return {arguments.split(',')[0]}\n"
    for activation, expression in expressions.items():
        text += f"    elif ACT == {activation!r}:\n" + activations.python(expression, " " * 8, SPELLED)
    return text + f'    else:\n        tl.static_assert(False, "no {name} of this activation")\n\n\n'


_rows = {name: row for name, row in activations.ROWS.items() if name}
activations.define(
    "import triton\nimport triton.language as tl\n\n\n"
    + _source("activate", "z", {name: row.formula for name, row in _rows.items()})
    + _source("through", "c, y", {name: row.derivative for name, row in _rows.items() if row.from_output})
    + _source("sloped", "c, z", {name: row.from_input for name, row in _rows.items()}),
    "<ganfast.kernels._activations>",
    globals(),
)
