"""A function that becomes one CUDA graph after a few calls."""

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ganfast.errors import InputError
from ganfast.ops import for_graph

WARM_UP = 3  # calls before the capture: optimisers make their moments, kernels are compiled and measured


@contextlib.contextmanager
def beside(stream: torch.cuda.Stream):
    """On ``stream``, after what the current one has been given so far, and before what comes."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        current.wait_stream(stream)


class Recorded:
    """``recorded()`` is ``function()``, from its fourth call on as the replay of a CUDA graph: one launch.

    The first calls run as they are, on ``stream``, where the next is captured. All of them are real: a capture records
    and does not run, so that nothing has to be undone. The graph's results are the same tensors at every replay.

    Args:
        function: works on static memory, and waits for the device nowhere.
        generators: the random generators it uses besides torch's own.
    Raises InputError where the function cannot be captured; what it works on is then as it was before the call.
    """

    def __init__(
        self, function: Callable[[], Any], stream: torch.cuda.Stream, generators: Iterable[torch.Generator] = ()
    ):
        self.function, self.stream, self.generators = function, stream, tuple(generators)
        self.to_warm = WARM_UP
        self.pool = None  # of another graph's memory to share
        self.graph: torch.cuda.CUDAGraph | None = None
        self.results: Any = None

    def __call__(self) -> Any:
        if self.graph is None:
            if self.to_warm:
                self.to_warm -= 1
                with for_graph(), beside(self.stream):
                    return self.function()
            self.capture()
        self.graph.replay()
        return self.results

    def capture(self) -> None:
        gc.collect()  # what a cycle keeps alive must not be freed in the middle of a capture
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        try:
            # thread_local: other threads, such as a loader's that pins memory or NCCL's, go on meanwhile;
            # the outer stream: where ending a failed capture fails, torch.cuda.graph leaves its own current
            captured = torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local")
            with for_graph(), beside(self.stream), captured:
                self.results = self.function()
        except RuntimeError as error:
            first = error  # ending a capture that failed fails once more
            while first.__context__:
                first = first.__context__
            calls = [call for call in traceback.extract_tb(first.__traceback__) if not is_torch(call.filename)]
            place = f"{calls[-1].filename}, line {calls[-1].lineno}: " if calls else ""
            raise InputError(
                f"the step cannot be captured in a CUDA graph ({place}{str(first).splitlines()[0]})"
            ) from error
        self.graph = graph


def is_torch(file: str) -> bool:
    """Whether code is torch's own, or was made by it."""
    return file.startswith((_TORCH, "<eval_with_key>"))


_TORCH = torch.__file__.removesuffix("__init__.py")
