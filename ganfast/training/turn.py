"""The turn ``t``: what a player's loss sees."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ganfast.errors import InputError


class State:
    """A recipe's numbers, ``t.state.k``: static tensors. Assigning copies in place, as a captured graph needs."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        for name, tensor in tensors.items():
            object.__setattr__(self, name, tensor)

    def __setattr__(self, name: str, value) -> None:
        tensor = vars(self).get(name)
        if tensor is None:
            raise AttributeError(f"state has no {name!r}: name it in the recipe's state(), there are {[*vars(self)]}")
        if value is not tensor:  # += has changed it in place already
            with torch.no_grad():
                tensor.copy_(value) if isinstance(value, Tensor) else tensor.fill_(value)


class Turn:
    """Networks and columns by name, random numbers, state, and what earlier players of the step left.

    A loss may set attributes (``t.fake = ...``) that later players of the same step read: outputs of networks as they
    are, where these differentiate through them, since what is computed of them belongs to its own compiled graph.
    Only device operations: the same loss runs as it is, under torch.compile, and in a CUDA graph.

    - ``t.normal(*shape)``, ``t.uniform(*shape)``: fp32 [B, *shape] ~ N(0, 1) and U[0, 1), B samples of this process;
      ``t.categorical(k)``: int64 [B], uniform in 0 … k−1. N processes draw what one does.
    - ``t.state.name``: the recipe's tensors; assigning copies.
    - ``t.log(name=scalar)``: figures for the progress bar, stats.jsonl, TensorBoard, losses.png and the report.
    - ``t.scale``: what losses are multiplied by in fp16, for losses that fill ``.grad`` themselves; None: nothing.
    - ``t.mean(x)``: the mean of x over all processes; ``t.gather(x)``: the rows of all processes, without gradients;
      ``t.mine(x)``: this process's rows of such a whole batch.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        columns: Mapping[str, object],
        state: Mapping[str, Tensor],
        noise: torch.Generator,
        batch: int,
        rows: slice,
        scale: Callable[[], Tensor | None],
        average: Callable[[Tensor], None],
        gather: Callable[[Tensor], Tensor],
    ):
        taken = {"state", "log", "normal", "uniform", "categorical", "scale", "mean", "gather", "mine"}
        for name in (*networks, *columns):
            if name in taken or not name.isidentifier() or name.startswith("_"):
                raise InputError(f"a recipe cannot call a network or column {name!r}: the turn uses that name.")
        self.state = State(state)
        self._noise, self._batch, self._rows = noise, batch, rows
        self._scale, self._average, self._gather = scale, average, gather
        self._figures: dict[str, Tensor] = {}
        vars(self).update(networks)
        self._kept = {*vars(self), "_kept"}

    def log(self, **figures: Tensor) -> None:
        """Scalars by name; of several updates of a step the last one's count."""
        self._figures.update({name: value.detach() for name, value in figures.items()})

    def normal(self, *shape: int) -> Tensor:
        return self._draw(torch.randn, *shape)

    def uniform(self, *shape: int) -> Tensor:
        return self._draw(torch.rand, *shape)

    def categorical(self, classes: int) -> Tensor:
        drawn = torch.randint(classes, (self._batch,), generator=self._noise, device=self._noise.device)
        return drawn[self._rows]

    def _draw(self, numbers: Callable, *shape: int) -> Tensor:
        """This process's rows of ``numbers`` for the whole batch."""
        return numbers((self._batch, *shape), generator=self._noise, device=self._noise.device)[self._rows]

    @property
    def scale(self) -> Tensor | None:
        return self._scale()

    def mean(self, x: Tensor) -> Tensor:
        x = x.detach().clone()
        self._average(x)
        return x

    def gather(self, x: Tensor) -> Tensor:
        return self._gather(x.detach())

    def mine(self, x: Tensor) -> Tensor:
        return x[self._rows]

    def _clear(self) -> None:
        """Drop what players left: graphs and batches."""
        for name in vars(self).keys() - self._kept:
            delattr(self, name)
