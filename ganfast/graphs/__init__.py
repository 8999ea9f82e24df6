"""Steps as CUDA graphs: a dry run that says what a graph cannot hold, the recording, and a person's own step."""

from ganfast.graphs.captured import Captured, capture
from ganfast.graphs.recorded import WARM_UP, Recorded

__all__ = ["WARM_UP", "Captured", "Recorded", "capture"]
