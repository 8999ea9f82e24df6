"""sigmoid_bce of both sides against two calls of torch's cross-entropy with logits.

pytest bench/test_sigmoid_bce.py --benchmark-only
"""

import frame
import pytest
import torch
import torch.nn.functional as F
from frame import PASSES, PLACES, Work, passes

from ganfast import functional, reference


def torch_loss(real, fake):
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))


FUNCTIONS = {"ganfast": functional.sigmoid_bce, "torch": torch_loss}


@pytest.mark.parametrize("row", FUNCTIONS)
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("n", [64, 65_536])
@pytest.mark.parametrize("place", PLACES)
def test_sigmoid_bce(measure, place, n, which, row):
    measure(
        {name: passes(f, which) for name, f in FUNCTIONS.items()},
        make=lambda: tuple(torch.randn(n, 1, device=measure.device) for _ in range(2)),
        check=frame.close(1e-5, passes(reference.sigmoid_bce, which)),
        work=Work(bytes=8 * n * (1 if which == "forward" else 2), operations=20 * n),
    )
