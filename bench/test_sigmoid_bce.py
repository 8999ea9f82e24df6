"""sigmoid_bce of both sides against two calls of torch's cross-entropy with logits.

pytest bench/test_sigmoid_bce.py --benchmark-only
"""

import calibrate
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
BOUNDS = {"fp32": 1e-5, "bf16": 1e-2}  # torch's loss is rounded to bf16


@pytest.mark.parametrize("row", FUNCTIONS)
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("n, dtype", [(64, "fp32"), (65_536, "fp32"), pytest.param(65_536, "bf16", marks=frame.full)])
@pytest.mark.parametrize("place", PLACES)
def test_sigmoid_bce(measure, place, n, dtype, which, row):
    kind = calibrate.DTYPES[dtype]
    measure(
        {name: passes(f, which) for name, f in FUNCTIONS.items()},
        make=lambda: tuple(torch.randn(n, 1, device=measure.device).to(kind) for _ in range(2)),
        check=frame.close(BOUNDS[dtype], passes(reference.sigmoid_bce, which)),
        work=Work(bytes=2 * kind.itemsize * n * (1 if which == "forward" else 2), operations=20 * n),
    )
