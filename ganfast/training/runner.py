"""How a step is run: as it is, or as one CUDA graph."""

import torch

from ganfast.errors import InputError
from ganfast.graphs import Recorded
from ganfast.ops import _tuning
from ganfast.training.step import Step


class Runner:
    """``runner()`` loads the batches and makes a step.

    With ``graph`` the step is captured in one CUDA graph after a few, and replayed from there on: one launch. Nothing
    else differs, random numbers included. ``log`` is told.
    """

    def __init__(self, step: Step, graph: bool, log=lambda text: None):
        self.step, self.log = step, log
        self.recorded = Recorded(step, torch.cuda.Stream(step.feed.device), [step.noise]) if graph else None

    @property
    def graph(self) -> "torch.cuda.CUDAGraph | None":
        return self.recorded and self.recorded.graph

    def __call__(self) -> None:
        self.step.feed.load()
        if self.recorded is None:
            self.step()
        elif self.recorded.graph or self.recorded.to_warm:
            self.recorded()
        else:
            self.capture()

    def capture(self) -> None:
        if _tuning.measured:
            took, place = sum(_tuning.measured), _tuning.path()
            self.log(f"Measured the fastest kernels for {len(_tuning.measured)} shapes in {took:.1f} s: {place}")
        try:
            self.recorded()
        except InputError as error:
            raise InputError(f"{error}: give --no-graph.") from error
        self.log("The step is one CUDA graph from here on.")
