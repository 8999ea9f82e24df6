"""interpolate's check against fp64, for its two test files."""

import torch

from ganfast import ops
from ganfast.ops.interpolate import interpolate

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# |a − b| against |ε·x| + |(1 − ε)·x̃|: fp32 makes 1 − ε, two products and a sum, each within 2^-24; a half result is
# rounded once more, to half an ulp.
BOUND = {torch.float32: 4 * 2**-24, torch.float16: 2**-11 + 4 * 2**-24, torch.bfloat16: 2**-8}
TINY = {torch.float32: 2**-149, torch.float16: 2**-24, torch.bfloat16: 2**-133}  # a subnormal: products may be ones


def backends(device):
    """The backends that can run here."""
    rows = [row for row in ops.table() if row[0] == "interpolate" and row[1] == device]
    return [name for _, _, name, answer in rows if answer is True]


def check_against_reference(real, fake, epsilon):
    """One or both sides on the current backend against fp64; layout and dtype as those of the first."""
    got = interpolate(real, fake, epsilon)
    first = fake if real is None else real
    shape = (-1, *[1] * (first.dim() - 1))
    e = epsilon.double().reshape(shape)
    parts = [None if x is None else f * x.double() for f, x in ((e, real), (1 - e, fake))]
    parts = [p for p in parts if p is not None]
    assert got.shape == first.shape and got.dtype == first.dtype
    error, size = (got.double() - sum(parts)).abs(), sum(p.abs() for p in parts)
    assert bool((error <= BOUND[got.dtype] * size + TINY[got.dtype]).all())  # NaN fails
    return got
