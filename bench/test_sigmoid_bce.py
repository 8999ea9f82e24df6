"""sigmoid_bce, forward and backward of both sides, against two calls of torch's cross-entropy with logits.

pytest bench/test_sigmoid_bce.py --benchmark-only
"""

import pytest
import torch
import torch.nn.functional as F

from ganfast import functional

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


def ganfast_loss(real, fake, ones, zeros):
    return functional.sigmoid_bce(real, fake)


def torch_loss(real, fake, ones, zeros):
    return F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(fake, zeros)


@pytest.mark.parametrize("implementation", [ganfast_loss, torch_loss], ids=["ganfast", "torch"])
@pytest.mark.parametrize("n", [64, 65_536])
@pytest.mark.parametrize("device", DEVICES)
def test_forward_and_backward(benchmark, device, n, implementation):
    benchmark.group = f"sigmoid_bce {device} {n}"
    real, fake = (torch.randn(n, 1, device=device, requires_grad=True) for _ in range(2))
    targets = torch.ones_like(real), torch.zeros_like(fake)

    def step():
        real.grad = fake.grad = None
        loss = implementation(real, fake, *targets)
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return loss, real.grad, fake.grad

    got = step()
    wanted = torch_loss(*(x.detach().double() for x in (real, fake)), *(t.double() for t in targets))
    torch.testing.assert_close(got[0].double(), wanted, rtol=3e-6, atol=0)
    for x, t, grad in zip((real, fake), targets, got[1:]):
        torch.testing.assert_close(grad, ((torch.sigmoid(x.double()) - t) / n).float(), rtol=1e-5, atol=1e-6 / n)
    benchmark(step)
