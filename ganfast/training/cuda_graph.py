"""How a step is run: as it is, or as CUDA graphs."""

import functools

import torch

from ganfast.errors import InputError
from ganfast.graphs import Recorded
from ganfast.ops import _tuning
from ganfast.training.step import Step


class CUDAGraphs:
    """``run()`` loads the batches and makes a step.

    With ``graph`` a step is captured in a CUDA graph after a few, and replayed from there on: one launch. Where players
    move at some steps only, each set of them has its graph; all share one pool of memory. Nothing else differs, random
    numbers included. ``log`` receives messages.
    """

    def __init__(self, step: Step, graph: bool, log=lambda text: None):
        self.step, self.log = step, log
        self.stream = torch.cuda.Stream(step.state.loaders[0].device) if graph else None
        self.recorded: dict[tuple[bool, ...], Recorded] = {}

    @property
    def graphs(self) -> list["torch.cuda.CUDAGraph"]:
        return [recorded.graph for recorded in self.recorded.values() if recorded.graph]

    def __call__(self) -> None:
        state = self.step.state
        state.in_step = True
        for loader in state.loaders:
            loader.load()
        due = self.step.due()
        if self.stream is None:
            self.step(due)
        else:
            if due not in self.recorded:
                self.recorded[due] = Recorded(functools.partial(self.step, due), self.stream, [state.noise])
            self.replay(self.recorded[due])
        state.step += 1
        state.in_step = False

    def replay(self, recorded: Recorded) -> None:
        if recorded.graph or recorded.to_warm:
            recorded()
            return
        first = not self.graphs
        if first and _tuning.measured:
            took, place = sum(_tuning.measured), _tuning.path()
            self.log(f"Measured the fastest kernels for {len(_tuning.measured)} shapes in {took:.1f} s: {place}")
        recorded.pool = None if first else self.graphs[0].pool()
        try:
            recorded()
        except InputError as error:
            raise InputError(f"{error}: give --no-graph.") from error
        if first:
            self.log("The step is one CUDA graph from here on.")
