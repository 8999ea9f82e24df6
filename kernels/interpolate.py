"""interpolate in Triton: out = ε·real + (1 − ε)·fake, one ε per sample, in fp32 and rounded once.

Tensors have one order in memory with the samples one after another; an absent side is None.
"""

import triton
import triton.language as tl
from ganfast.kernels import tuned
from ganfast.kernels._launch import cdiv, launch

BLOCK = 4096
WARPS = 8
globals().update(tuned.constants("interpolate"))


@triton.jit
def interpolate_kernel(
    real, fake, epsilon, size, blocks, out, HAS_REAL: tl.constexpr, HAS_FAKE: tl.constexpr, BLOCK: tl.constexpr
):
    sample = tl.program_id(0) // blocks
    block = tl.program_id(0) % blocks
    inside = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = inside < size
    at = sample.to(tl.int64) * size + inside
    e = tl.load(epsilon + sample)
    value = tl.zeros([BLOCK], tl.float32)
    if HAS_REAL:
        value += e * tl.load(real + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_FAKE:
        value += (1.0 - e) * tl.load(fake + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


def interpolate(real, fake, epsilon, out):
    """out [B, ...] from real and fake (either may be None) and epsilon [B]."""
    if out.numel() == 0:
        return
    size = out.numel() // out.shape[0]
    blocks = cdiv(size, BLOCK)
    launch(interpolate_kernel, (out.shape[0] * blocks,),
        out if real is None else real, out if fake is None else fake, epsilon, size, blocks, out,
        HAS_REAL=real is not None, HAS_FAKE=fake is not None, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
