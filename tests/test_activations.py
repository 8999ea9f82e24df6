"""The table of activations: its expressions against autograd, large and non-finite inputs, and one row more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_activations import torch_module

from ganfast import activations
from ganfast.reference.activation import activate, bend, pull, slope_and_bend, through

HERE = Path(__file__).parent
NAMES = [name for name in activations.ROWS if name]


@pytest.mark.parametrize("name", NAMES)
def test_formulas_and_derivatives(name):
    """All that is made from a row, against autograd of torch's own module."""
    row, ones = activations.ROWS[name], torch.ones(2001, dtype=torch.float64)
    z = torch.linspace(-10, 10.001, 2001, dtype=torch.float64).requires_grad_()
    y = torch_module(name)(z)
    (first,) = torch.autograd.grad(y.sum(), z, create_graph=True)
    torch.testing.assert_close(activate(z, name, 0.2), y)
    plain = {"z": z, "slope": 0.2, "y": y, "c": 3 * ones}
    space = words()
    torch.testing.assert_close(evaluated(row.formula, space, plain), y)
    torch.testing.assert_close(evaluated(row.derivative, space, plain), 3 * first)
    torch.testing.assert_close(evaluated(row.from_input, space, plain), 3 * first)
    torch.testing.assert_close(pull(3 * ones, z, y, name, 0.2), 3 * first)
    if row.from_output:
        torch.testing.assert_close(through(3 * ones, y, name, 0.2), 3 * first)
    slope, bent = slope_and_bend(z, name, 0.2)
    torch.testing.assert_close(slope, first)
    if row.piecewise_linear:
        assert bent is None and bend(ones, z, y, name, 0.2) is None
        assert not through(ones, y, name, 0.2).requires_grad
        return
    (second,) = torch.autograd.grad(first.sum(), z)
    torch.testing.assert_close(bent, second)
    torch.testing.assert_close(bend(3 * ones, z, y, name, 0.2), 3 * second)


def words():
    from ganfast.reference.activation import _word

    return {name: _word(name) for row in activations.ROWS.values() for name in activations.calls(row.formula)} | {
        name: _word(name) for row in activations.ROWS.values() for name in activations.calls(row.derivative)
    }


def evaluated(expression, space, values):
    space = dict(space)
    exec(f"def f({', '.join(values)}):\n{activations.python(expression, '    ')}", space)
    return space["f"](**values)


@pytest.mark.parametrize("name", NAMES)
def test_large_inputs_and_nan(name):
    z = torch.tensor([-1e38, -1e20, -100.0, 0.0, 100.0, 1e20, 1e38, float("nan")])
    y = activate(z, name, 0.2)
    slope, bent = slope_and_bend(z, name, 0.2)
    for found in (y, slope) if bent is None else (y, slope, bent):
        assert found[:-1].isfinite().all()
    assert y[-1].isnan() and (bent is None or slope[-1].isnan())


def test_arguments_are_checked():
    listed = ", ".join(map(repr, NAMES))
    with pytest.raises(ValueError, match=re.escape(f"act: got 'ulu', needs one of {listed} or None")):
        activations.check("ulu", 0.2, "act")
    with pytest.raises(TypeError, match="negative_slope: got str, needs a number"):
        activations.check("relu", "0.2")
    with pytest.raises(ValueError, match="slope: got nan, needs a finite number"):
        activations.check("relu", float("nan"), "act", "slope")


def test_what_cpp_cannot_say_is_refused():
    with pytest.raises(ValueError, match=re.escape("no C++ for z ** 2")):
        activations._cpp(activations.ast.parse("z ** 2", mode="eval").body)
    with pytest.raises(ValueError, match="no C"):
        activations._cpp(activations.ast.parse("where(z < 1, z, 0.0)", mode="eval").body)


def test_a_row_is_all_that_an_activation_takes():
    pytest.importorskip("triton")
    path = os.pathsep.join(map(str, (HERE.parent, HERE)))
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    command = [sys.executable, HERE / "added_activation.py"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip().endswith("done")
