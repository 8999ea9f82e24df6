"""torch's functions and methods as the recorder meets them: the tables of rules, and what works in place.

A maker (of_layers.py, of_tensors.py) takes a call's arguments, the recorder first, and gives (rule, its tensors in
order), or None for no rule: the call runs natively then, which is right, too, but takes double backward (recorder.py).
``COMPOSITES`` are written as calls of others.
"""

import inspect
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

RULES, COMPOSITES = {}, {}


def named(*names) -> list:
    """torch's functions of these names, and its methods."""
    found = [getattr(home, name, None) for home in (torch, Tensor, F) for name in names]
    return [function for function in found if callable(function)]


def _table(table):
    def of(*names):
        def register(make):
            for name in names:
                for function in named(name) if isinstance(name, str) else [name]:
                    table[function] = make
            return make

        return register

    return of


rule, composite = _table(RULES), _table(COMPOSITES)
RANDOM = frozenset(
    named("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli",
          "multinomial", "poisson", "uniform_", "normal_", "bernoulli_", "random_", "exponential_", "cauchy_",
          "log_normal_", "geometric_")
)  # fmt: skip
SHAPES = frozenset(
    named("view", "reshape", "flatten", "unflatten", "expand", "squeeze", "unsqueeze", "new_zeros", "new_ones", "zeros",
          "ones", "empty", "new_empty", "full", "new_full")
)  # fmt: skip
CONSTANTS = frozenset(named("new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like"))
REFUSED = frozenset(named("register_hook", "register_post_accumulate_grad_hook", "backward", "set_", "resize_"))


def name_of(function) -> str:
    name = getattr(function, "__name__", str(function))
    return getattr(getattr(function, "__self__", None), "__name__", name) if name == "__get__" else name


# --- operations in place ----------------------------------------------------------------------------------------------

_IN_PLACE = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__"}
_NO_CHANGE = frozenset(named("requires_grad_", "retain_grad", "share_memory_", "rename_", "is_set_to"))


@cache
def _twin(function):
    """(the function out of place, the place of ``inplace`` among its arguments), None for what never works in place."""
    name = getattr(function, "__name__", "")
    if function in _NO_CHANGE:
        return None
    if name in _IN_PLACE or (name.endswith("_") and not name.endswith("__")):
        home = F if getattr(F, name, None) is function else torch if getattr(torch, name, None) is function else Tensor
        plain = None if name == "__setitem__" else getattr(home, name.removesuffix("_"), None)
        return plain or _on_a_copy(function), None
    if getattr(F, name, None) is function and inspect.isfunction(function):
        parameters = list(inspect.signature(function).parameters)
        return (function, parameters.index("inplace")) if "inplace" in parameters else None
    return None


def _on_a_copy(function):
    def call(x, *args, **kwargs):
        y = x.clone()
        function(y, *args, **kwargs)
        return y

    return call


def out_of_place(function, args, kwargs):
    """(function, args, kwargs) of a call that works in place on its first argument, as one that does not, else None."""
    twin = _twin(function)
    if twin is None or not args:
        return None
    plain, place = twin
    if place is None:
        return plain, args, kwargs
    if kwargs.get("inplace") or (len(args) > place and args[place]):
        return plain, args[:place], {k: v for k, v in kwargs.items() if k != "inplace"}
    return None
