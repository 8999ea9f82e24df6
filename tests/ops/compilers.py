"""What torch.compile is tested with: Inductor's code in fp32; in half types the graph, which is what differs there."""

import pytest
import torch

BY_DTYPE = pytest.mark.parametrize(
    ("dtype", "compiler"),
    [(torch.float32, "inductor"), (torch.float16, "aot_eager"), (torch.bfloat16, "aot_eager")],
)
