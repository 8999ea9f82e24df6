"""A step of operators as a CUDA graph: on a GPU, or on a CPU's tape (tests/tape.py)."""

import pytest
import torch

from ganfast.graphs import WARM_UP, Recorded
from ganfast.ops import for_graph

GRAPHS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=GRAPHS)
def graph_device(request):
    """The device on which a step is captured."""
    if request.param == "cpu":
        request.getfixturevalue("tape")
    return request.param


def captured(step):
    """(eager, replay) of step() → tensors: both give them without their autograd graph; replay is a captured graph.

    An autograd graph that outlives its step ties the leaves to the stream that it was made on, which a capture on
    another one must not touch. Eager operators choose as captured ones do.
    """

    def eager():
        with for_graph():
            return [t.detach() for t in step()]

    replay = Recorded(eager, torch.cuda.Stream())
    for _ in range(WARM_UP + 1):
        replay()
    return eager, replay
