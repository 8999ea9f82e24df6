"""Which way a critic takes, chosen once for each critic, kind of call and shape: :func:`plan_for`.

    merged    real, fake and x̂ of a step as one batch through the sweeps
    sweeps    x̂ through the sweeps; real and fake of a step through autograd
    autograd  torch's double backward

The first call tries the ways in that order and undoes what they did to the critic; of those that work the fastest is
taken (``ganfast.ops._tuning`` measures and remembers). Where nothing may be measured (a CUDA graph, several processes,
``torch.use_deterministic_algorithms(True)``, after a failure) it is the first, but autograd for a critic of which a
part has no rule.
"""

import contextlib
import random
import sys
import warnings
import weakref
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ganfast.ops import _tuning
from ganfast.ops._registry import host_counts
from ganfast.penalty.rules import NoRuleError, NotMergedError, is_channels_last
from ganfast.penalty.sweeps import autocast_dtype

_PLANS = weakref.WeakKeyDictionary()  # critic, or a function's code → {kind of call and shape: Plan}
_WARNED: set = set()


@dataclass
class Plan:
    """``way`` and, of the sweeps, the order in memory; ``reasons``: why the ways before it were left out."""

    way: str
    channels_last: bool = False
    reasons: dict = field(default_factory=dict)


def plan_for(critic, name: str, x: Tensor, inputs: tuple, strict: bool, ways: dict) -> Plan:
    """The plan of a call. ``ways``: name → function(channels_last) → (gradients made, the tape or None).

    A way that cannot be taken raises NoRuleError or NotMergedError. ``strict``: raises NoRuleError rather than to
    take autograd.
    """
    owner = critic if isinstance(critic, nn.Module) else getattr(critic, "__code__", critic)
    key = (
        name, strict, x.shape, x.dtype, x.device, is_channels_last(x), autocast_dtype(x.device),
        torch.is_grad_enabled(), getattr(critic, "training", None),
        *(type(i) if isinstance(i, Tensor) else repr(i) for i in inputs),
    )  # fmt: skip
    plans = _plans_of(owner)
    if key not in plans:
        plan = _made(critic, name, x, strict, ways)
        if _tuning.not_now(x.device) and plan.way != "autograd":
            return plan  # a dry run, a capture: later it may be measured
        plans[key] = plan
    return plans[key]


def _plans_of(owner) -> dict:
    try:
        return _PLANS.setdefault(owner, {})
    except TypeError:  # no weak references
        return {}


def failed(critic, plan: Plan, strict: bool, error) -> None:
    """A way that could not be taken after all: the critic's forward is another now, or is met for the first time."""
    if strict:
        raise NoRuleError(f"critic: {_name(critic)}: {error} (strict)") from None
    if isinstance(critic, nn.Module):
        forget(critic)
    else:
        plan.way = "autograd"
        _warn(critic, str(error), _place(error))


def forget(critic) -> None:
    """Its plans are made anew."""
    _PLANS.pop(critic, None)


def _name(critic) -> str:
    return type(critic).__name__ if isinstance(critic, nn.Module) else getattr(critic, "__name__", str(critic))


def _made(critic, name, x, strict, ways):
    if not isinstance(critic, nn.Module):  # nothing could be undone
        return Plan("sweeps")
    candidates, reasons, tape = {}, {}, None
    for way, run in ways.items():
        if way == "autograd":
            continue
        try:
            if way == "merged" and (mixing := [m for m in critic.modules() if getattr(m, "mixes_samples", False)]):
                raise NotMergedError(f"{type(mixing[0]).__name__} says that it mixes samples")
            with undone(critic, x.device) as written:
                tape = run(False)
            if way == "merged" and written:
                raise NotMergedError(f"its forward writes to {written[0]}")
            candidates[way] = run
            break
        except NotMergedError as error:
            reasons[way] = str(error)
        except NoRuleError as error:
            reasons["sweeps"] = str(error)
            if strict:
                raise NoRuleError(f"critic: {_name(critic)}: {error} (strict)") from None
            _warn(critic, str(error), _place(error))
            break
    if not candidates:
        return Plan("autograd", reasons=reasons)
    (way,) = candidates
    return _chosen(critic, way, tape, name, x, strict, ways, reasons)


def _chosen(critic, way, tape, name, x, strict, ways, reasons):
    """The faster of a way, of it in channels_last on a CPU, and of autograd."""
    lasts = x.device.type == "cpu" and x.dim() == 4 and tape.convolves and not is_channels_last(x)
    modelled = Plan("autograd" if tape.islands and not strict else way, lasts, reasons)
    if not _measures(x.device, tape):
        return modelled
    candidates = {way: lambda: ways[way](False)}
    if lasts:
        candidates = {f"{way}, channels_last": lambda: ways[way](True)} | candidates
    if not strict:
        candidates["autograd"] = lambda: ways["autograd"](False)
    key = (
        "critic", name, tape.signature(), tuple(x.shape), str(x.dtype), x.stride(), str(autocast_dtype(x.device)),
        critic.training, torch.is_grad_enabled(), torch.get_num_threads(),
    )  # fmt: skip
    with undone(critic, x.device):
        choice = _tuning.choose(key, candidates, x.device, by_host=True)
    found = choice.partition(",")[0]
    return Plan(found, choice.endswith("channels_last"), reasons)


def _measures(device, tape) -> bool:
    """Whether the ways are timed here: where the host counts, but not where the sweeps are known to win."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return False  # every rank is to do the same
    if torch.get_deterministic_debug_mode() == 2 or _tuning.not_now(device):
        return False
    return device.type == "cpu" or (host_counts(device) and not tape.flat)


# --- what a trial leaves ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def undone(critic: nn.Module, device: torch.device):
    """What calls of the critic change is afterwards as it was: attributes, buffers, random states.

    Gives a list, then of what was written: "Critic.features".
    """
    buffers = [(b, b.clone()) for b in critic.buffers()]
    modules = [(m, {k: _copied(v) for k, v in vars(m).items()}) for m in critic.modules()]
    states = random.getstate(), sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None
    written = []
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield written
    finally:
        for module, before in modules:
            written += _restored(module, before)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        written += _drawn(*states)


def _drawn(python, numpy) -> list:
    """Puts the random states back; says whether numbers were drawn."""
    changed = random.getstate() != python
    random.setstate(python)
    if numpy is not None:
        now = sys.modules["numpy"].random.get_state()
        changed |= now[2] != numpy[2] or (now[1] != numpy[1]).any()
        sys.modules["numpy"].random.set_state(numpy)
    return ["the random state of Python or numpy"] if changed else []


def _copied(value):
    return value.copy() if type(value) in (list, dict, set) else value


def _restored(module, before) -> list:
    """Puts a module's attributes back; the names of those that were written."""
    now, found = vars(module), []
    for name in [*now]:
        if name not in before:
            found.append(f"{type(module).__name__}.{name}")
            del now[name]
    made = {hook.name for hook in now["_forward_pre_hooks"].values() if isinstance(hook, (SpectralNorm, WeightNorm))}
    for name, value in before.items():
        held = now.get(name)
        if name in made:  # a weight, made anew at each call
            now[name] = value
            continue
        if type(value) in (list, dict, set) and type(held) is type(value):
            if len(held) != len(value) or any(a is not b for a, b in zip(_items(held), _items(value))):
                found.append(f"{type(module).__name__}.{name}")
                held.clear()
                (held.extend if type(held) is list else held.update)(value)
        elif held is not value or name not in now:
            found.append(f"{type(module).__name__}.{name}")
            now[name] = value
    return found


def _items(value):
    return value.values() if type(value) is dict else value


# --- words ------------------------------------------------------------------------------------------------------------


def _place(error):
    """Where in the critic's code it happened, " (file, line 3)", or nothing."""
    found, traceback = "", error.__traceback__
    if error.__cause__ is not None:
        traceback = error.__cause__.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").split(".")[0] not in ("torch", "ganfast"):
            found = f" ({frame.f_code.co_filename}, line {traceback.tb_lineno})"
        traceback = traceback.tb_next
    return found


def _warn(critic, reason, place):
    if (_name(critic), reason) in _WARNED:
        return
    _WARNED.add((_name(critic), reason))
    warnings.warn(
        f"ganfast.penalty: {_name(critic)} takes torch's double backward, since {reason}{place}; "
        "ganfast.penalty.explain(critic, x) says more",
        stacklevel=6,
    )
