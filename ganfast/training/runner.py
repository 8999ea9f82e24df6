"""How a step is run: as it is, or as one CUDA graph."""

import torch

from ganfast.errors import InputError
from ganfast.ops import _tuning
from ganfast.training.step import Step

WARM_UP = 3  # steps before the capture: optimisers make their moments, kernels are compiled and measured


class Runner:
    """``runner()`` loads the batches and makes a step.

    With ``graph`` the first steps run as they are, on a stream of their own; then the step is captured once in a CUDA
    graph and from there on replayed: one launch. Nothing else differs, random numbers included. ``log`` is told.
    """

    def __init__(self, step: Step, graph: bool, log=lambda text: None):
        self.step, self.log = step, log
        self.to_warm = WARM_UP if graph else None
        self.stream = torch.cuda.Stream(step.feed.device) if graph else None  # of warm-up and capture
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        self.step.feed.load()
        if self.graph:
            self.graph.replay()
        elif self.to_warm is None:
            self.step()
        elif self.to_warm:
            self.warm_up()
        else:
            if _tuning.measured:
                took, place = sum(_tuning.measured), _tuning.path()
                self.log(f"Measured the fastest kernels for {len(_tuning.measured)} shapes in {took:.1f} s: {place}")
            self.capture()
            self.graph.replay()  # capturing does not run the step

    def warm_up(self) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step()
        torch.cuda.current_stream().wait_stream(self.stream)
        self.to_warm -= 1

    def capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.step.noise)
        try:
            # thread_local: the feed's thread and NCCL's go on meanwhile
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.step()
        except RuntimeError as error:
            first = error  # ending a capture that failed fails once more
            while first.__context__:
                first = first.__context__
            reason = str(first).splitlines()[0]
            raise InputError(f"the step cannot be captured in a CUDA graph ({reason}): give --no-graph.") from error
        self.graph = graph
        self.log("The step is one CUDA graph from here on.")
