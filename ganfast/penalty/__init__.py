"""Gradient penalties without double backward (docs/gradient_penalty.md): exact, at the cost of first-order code.

A critic is run as it is, and its calls are recorded, each with a :class:`Rule`; what has none takes double backward
alone. ``register`` names the rule of a layer of one's own:

    class Swish(ganfast.penalty.Elementwise):             # or written out, f, f' and f''
        def value(self, x): ...
        def slope(self, x, y): ...
        def bend(self, x, y): ...

    ganfast.penalty.register(MySwish, Swish)
"""

from ganfast.penalty.explain import explain
from ganfast.penalty.penalties import dragan, gradient_penalty, lipschitz, r1, r2, zero_centered
from ganfast.penalty.rules import Elementwise, LinearMap, NoRuleError, Rule, register
from ganfast.penalty.step import WGANGPStep, wgan_gp_step

__all__ = [
    "Elementwise",
    "LinearMap",
    "NoRuleError",
    "Rule",
    "WGANGPStep",
    "dragan",
    "explain",
    "gradient_penalty",
    "lipschitz",
    "r1",
    "r2",
    "register",
    "wgan_gp_step",
    "zero_centered",
]
