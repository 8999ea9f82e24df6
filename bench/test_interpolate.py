"""interpolate against ε·x + (1 − ε)·x̃ and torch.lerp, each with its own draw of ε.

pytest bench/test_interpolate.py --benchmark-only
"""

import pytest
import torch

from ganfast import functional

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]
SHAPES = [(64, 3, 32, 32), (64, 3, 64, 64), (16, 3, 256, 256)]


def torch_composition(real, fake):
    epsilon = torch.rand(real.shape[0], 1, 1, 1, device=real.device)
    return epsilon * real + (1 - epsilon) * fake


def torch_lerp(real, fake):
    return torch.lerp(fake, real, torch.rand(real.shape[0], 1, 1, 1, device=real.device))


IMPLEMENTATIONS = {"ganfast": functional.interpolate, "torch": torch_composition, "lerp": torch_lerp}


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=["x".join(map(str, shape)) for shape in SHAPES])
@pytest.mark.parametrize("device", DEVICES)
def test_interpolate(benchmark, device, shape, name):
    benchmark.group = f"interpolate {device} {'x'.join(map(str, shape))}"
    real, fake = torch.randn(shape, device=device), torch.randn(shape, device=device)

    def run():
        x = IMPLEMENTATIONS[name](real, fake)
        if device == "cuda":
            torch.cuda.synchronize()
        return x

    torch.manual_seed(0)
    x = run()
    torch.manual_seed(0)
    torch.testing.assert_close(x, torch_composition(real, fake))  # the same draw: one ε per sample
    benchmark(run)
