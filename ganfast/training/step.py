"""One training step: every player that is due moves in its turn, then the averages follow."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganfast.errors import InputError, NonFiniteError
from ganfast.recipes.base import Player
from ganfast.training.gradients import FlatGradients
from ganfast.training.state import RunState, key, parameters_of
from ganfast.training.turn import Turn

FACTORS: dict[str, Callable[[Tensor], Tensor]] = {  # of the learning rate, by the share of the run that is over
    "linear": lambda share: 1 - share,
    "late-linear": lambda share: (2 - 2 * share).clamp(max=1),
    "cosine": lambda share: (1 + torch.cos(math.pi * share)) / 2,
}


@dataclass
class Update:
    """One update of a player, and what changes before it."""

    player: Player
    batch: int
    """which batch of the step it sees"""
    needs: list[tuple[nn.Parameter, bool]]
    """each parameter of all networks, and whether it needs a gradient meanwhile"""


class Step:
    """``step(due)`` trains: device operations over static memory, none of which waits for the device.

    So the same code runs as it is, under torch.compile, and as a CUDA graph, one for each set of players that are
    ``due``. What changes from step to step is on the device: batches (loaded before), the count of steps, learning
    rates, the loss scale, the state of random generators. Figures add up in ``state.means``.

    Args:
        lr_decay: "none", "linear", "late-linear" (in the second half) or "cosine": learning rates fall to 0 over
            ``total`` steps.
        average: makes its argument the mean over all processes, in place; ``gather`` returns the rows of all.
    """

    def __init__(
        self,
        state: RunState,
        lr_decay: str = "none",
        total: int = 1,
        average: Callable[[Tensor], None] = lambda numbers: None,
        gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    ):
        self.state, self.lr_decay, self.total, self.average_ranks = state, lr_decay, total, average
        loader = state.loaders[0]
        self.turn = Turn(
            state.networks, state.game.columns, state.tensors, state.noise, loader.sampler.batch, loader.rows,
            lambda: state.precision.scale, average, gather,
        )  # fmt: skip
        self.losses = {player.name: player.loss for player in state.players if player.loss is not None}
        remedies = state.game.remedies
        self.changes: dict[str, list[Callable]] = {}  # of a player's gradients, before its optimiser has them
        for name, gradients in state.gradients.items():
            pulls = [state.histories[name].pull] if name in state.histories else []
            clips = [functools.partial(gradients.clip, remedies.clip_gradients)] if remedies.clip_gradients else []
            self.changes[name] = pulls + clips
        self.apart: dict[str, Callable] = {}  # compiled networks, for players that do not train them
        self.updates = list(plan(state.players, state.networks))
        trained = [set(map(id, gradients.parameters)) for gradients in state.gradients.values()]
        self.shared = len(set().union(*trained)) < sum(map(len, trained))  # a parameter has several optimisers

    def compile(self) -> None:
        """From now on losses and networks run under torch.compile.

        What a player's loss calls of its own networks is compiled with it; a network of others is compiled apart, so
        that its graph outlives the player's: a later one differentiates through ``t.fake``.
        """
        disable = torch.compiler.disable
        for name, loss in self.losses.items():
            self.losses[name] = torch.compile(loss, dynamic=False)
        self.apart = {name: Apart(network) for name, network in self.state.networks.items()}
        for draw in ("normal", "uniform", "categorical"):
            setattr(self.turn, draw, disable(getattr(self.turn, draw)))
        self.turn._kept |= {"normal", "uniform", "categorical"}

    def due(self) -> tuple[bool, ...]:
        """Which players move in the step to come."""
        return tuple(self.state.step % player.every == 0 for player in self.state.players)

    def __call__(self, due: tuple[bool, ...] | None = None) -> None:
        state, turn = self.state, self.turn
        moving = {id(p) for p, moves in zip(state.players, due or self.due()) if moves}
        self.set_rates()
        losses: dict[str, Tensor] = {}
        batch = None
        for update in self.updates:
            if id(update.player) not in moving:
                continue
            if update.batch != batch:
                batch = update.batch
                self.show(batch)
            for parameter, needs in update.needs:
                if parameter.requires_grad is not needs:
                    parameter.requires_grad_(needs)
            loss = self.move(update)
            if loss is not None:
                losses[update.player.name] = loss
        state.count += 1
        for average in state.ema:
            average.update(state.count)
        norms = {p.name: self.norm(state.gradients[key(p)]) for p in state.players if p.name in losses}
        figures, turn._figures = turn._figures, {}
        state.means.add(
            {f"loss_{name}": loss for name, loss in losses.items()}
            | figures
            | {f"grad_norm_{name}": norm for name, norm in norms.items()}
        )
        turn._clear()

    def show(self, k: int) -> None:
        """The turn gets the columns of the k-th batch."""
        batches = [loader.batch(k) for loader in self.state.loaders]
        for name, column in self.state.game.columns.items():
            dataset = self.state.loaders[column.source].sampler.dataset
            setattr(self.turn, name, batches[column.source][dataset.column_of(column)])

    def move(self, update: Update) -> Tensor | None:
        """One update of a player; its loss, where it has one."""
        player, state, turn = update.player, self.state, self.turn
        loss = None
        if player.loss is not None:
            gradients = state.gradients[key(player)]
            for name, network in self.apart.items():
                setattr(turn, name, state.networks[name] if name in player.trains else network)
            if self.shared:
                gradients.attach()
            if player.own_gradients:
                gradients.zero()
            try:
                loss = self.differentiate(player, gradients)
            except NonFiniteError:  # raised on a CPU by penalties; NaN in the loss is noticed on every device and rank
                gradients.write(torch.full_like(view, torch.nan) for view in gradients.views)
                loss = gradients.buffer.new_full((), torch.nan)
            self.average_ranks(gradients.buffer)
            for change in self.changes.get(key(player), ()):
                change(state.precision.scale)
            state.precision.update(state.optimizers[key(player)])
        if player.after is not None:
            with torch.no_grad():
                player.after(turn)
        return loss

    def differentiate(self, player: Player, gradients: FlatGradients) -> Tensor:
        """Writes the gradients of a player's loss with respect to its networks; returns the loss."""
        with self.state.precision.autocast():
            loss = self.losses[player.name](self.turn)
        if loss.dim():
            raise InputError(f"player {player.name}: its loss has shape {tuple(loss.shape)}, needs a scalar.")
        if not player.own_gradients:
            if not loss.requires_grad:
                raise InputError(
                    f"player {player.name}: its loss does not depend on {', '.join(player.trains)}, which it trains: "
                    "where it uses what an earlier player made, that player needs keeps=."
                )
            gradients.write(self.state.precision.gradients(loss, gradients.parameters))
        return loss.detach()

    def set_rates(self) -> None:
        if self.lr_decay != "none":
            factor = FACTORS[self.lr_decay](self.state.count / self.total)
            for rate, base in self.state.rates:
                rate.copy_(factor * base)

    def norm(self, gradients: FlatGradients) -> Tensor:
        """‖∇loss‖₂, after the update, which takes the scale off; 0 where fp16 overflowed and it was left out."""
        norm = gradients.norm()
        return norm if self.state.precision.scale is None else norm.nan_to_num(0, 0, 0)


def plan(players: list[Player], networks: dict[str, nn.Module]) -> Iterator[Update]:
    """The updates of a step in which all players move."""
    batch, everything = 0, list(parameters_of(networks.values()))
    for place, player in enumerate(players):
        later = players[place + 1 :]
        keeps = player.keeps if player.keeps is not None else {name for other in later for name in other.trains}
        for k in range(player.times):
            batch += k > 0
            trains = {*player.trains, *(keeps if k == player.times - 1 else ())}
            own = set(parameters_of([networks[name] for name in trains]))
            yield Update(player, batch, [(parameter, parameter in own) for parameter in everything])


class Apart:
    """A network that is compiled by itself, also when a compiled function calls it."""

    def __init__(self, network: nn.Module):
        self.network, self.compiled = network, torch.compile(network, dynamic=False)
        self.call = torch.compiler.disable(self.compiled, recursive=False)

    def __call__(self, *inputs, **named):
        return self.call(*inputs, **named)

    def __getattr__(self, name: str):
        return getattr(self.network, name)
