"""Operators run with torch.empty filled with NaN: what a kernel forgets to write shows."""

import pytest
import torch
from graphed import graph_device
from tape import tape

__all__ = ["graph_device", "tape"]


@pytest.fixture(autouse=True)
def poisoned_empty():
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    assert torch.zeros(1).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
