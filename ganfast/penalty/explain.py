"""What the penalty makes of a critic: :func:`explain`."""

from pathlib import Path

import torch
from torch import nn

from ganfast.penalty.critics import constants, unwrapped
from ganfast.penalty.layers import Affine
from ganfast.penalty.plan import _PLANS, undone
from ganfast.penalty.recorder import record
from ganfast.penalty.rules import Island, NoRuleError, NotMergedError


class Explanation(str):
    """Prints as it is."""

    def __repr__(self):
        return str(self)


def explain(critic, x, inputs=()) -> Explanation:
    """How a critic goes through a gradient penalty at samples x: a table to print, one line for each call.

    The rule of each call, where the critic's code makes it, whether it is curved (then an adjoint sweep runs below it),
    which take double backward alone; whether a WGAN-GP step takes real, fake and x̂ as one batch, and why not; the way
    that was chosen for each kind of call and shape so far. The critic is left as it was.
    """
    critic, inputs = unwrapped(critic), constants(inputs)
    if not isinstance(critic, nn.Module):
        raise TypeError("critic: explain needs a torch.nn.Module, whose state it can put back")
    name = type(critic).__name__
    try:
        with undone(critic, x.device):
            tape, _ = record(critic, x.detach(), inputs, lines=True)
    except NoRuleError as error:
        return Explanation(f"{name} takes torch's double backward: {error}")
    rows = [_row(node) for node in tape.nodes]
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return Explanation("\n".join([f"{name}: {_counted(tape)}", *table, _merged(critic, x, inputs), *_chosen(critic)]))


def _row(node):
    kind = "double backward alone" if isinstance(node.rule, Island) else "curved" if node.rule.curved else ""
    place = f"{Path(node.line[0]).name}:{node.line[1]}" if node.line else ""
    shapes = " ".join("×".join(map(str, w.shape)) or "1" for w in node.weights)
    return type(node.rule).__name__.strip("_"), shapes, kind, place


def _counted(tape):
    heavy = sum(isinstance(node.rule, Affine) for node in tape.nodes)
    islands = sum(isinstance(node.rule, Island) for node in tape.nodes)
    curved = "curved" if tape.curved else "piecewise linear, no adjoint sweep"
    apart = f", {islands} of them without a rule (ganfast.penalty.register names one)" if islands else ""
    return f"{len(tape.nodes)} calls{apart}, {heavy} convolutions and products with weights; {curved}"


def _merged(critic, x, inputs):
    if inputs:
        return "not merged: it has further arguments"
    try:
        with undone(critic, x.device) as written:
            record(critic, torch.cat([x.detach()] * 3), start=2 * len(x))
    except (NotMergedError, NoRuleError) as error:
        return f"not merged: {error}"
    return f"not merged: its forward writes to {written[0]}" if written else "merged: a step takes one batch"


def _chosen(critic):
    for key, plan in _PLANS.get(critic, {}).items():
        order = " in channels_last" if plan.channels_last else ""
        why = "".join(f"; not {way}: {reason}" for way, reason in plan.reasons.items())
        yield f"{key[0]} at {tuple(key[2])}, {str(key[3]).removeprefix('torch.')}: {plan.way}{order}{why}"
