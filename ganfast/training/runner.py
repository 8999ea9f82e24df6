"""How a step is run: as it is, or as one CUDA graph."""

import torch

from ganfast.errors import InputError
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
            self.capture()
            self.graph.replay()  # capturing does not run the step

    def warm_up(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.to_warm -= 1

    def capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.step.noise)
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # the feed's thread goes on meanwhile
                self.step()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the step cannot be captured in a CUDA graph ({reason}): give --no-graph.") from error
        self.graph = graph
        self.log("The step is one CUDA graph from here on.")
