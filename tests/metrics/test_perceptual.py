"""Distances by maps of features: what they are zero for, what they see, and that they can be descended."""

import pytest
import torch

from ganfast.metrics.features import Network
from ganfast.metrics.perceptual import Perceptual, blocks, pixels
from ganfast.models.inception import InceptionV3
from ganfast.models.mobilenet import MobileNetV2
from ganfast.models.squeezenet import SqueezeNet
from ganfast.models.vit import DINOv2


@pytest.mark.parametrize(
    "make",
    [MobileNetV2, pytest.param(SqueezeNet, marks=pytest.mark.slow)],
    ids=["mobilenet", "squeezenet"],
)
def test_it_is_a_distance_that_can_be_descended(make):
    distance = Perceptual(Network("random", make().eval().requires_grad_(False), ""))
    targets = torch.rand(2, 1, 16, 20) * 2 - 1
    measure = distance(targets)
    assert torch.equal(measure(targets), torch.zeros(2))
    images = targets.clone()
    images[1] = torch.rand_like(images[1]) * 2 - 1
    images.requires_grad_()
    found = measure(images)
    assert found.shape == (2,) and found[0] < 1e-6 < found[1] <= 4
    found.sum().backward()
    assert images.grad[1].abs().max() > 0 and images.grad.isfinite().all()
    nearer = images.detach() - 0.01 * images.grad / images.grad.norm()
    assert measure(nearer)[1] < found[1]
    torch.testing.assert_close(distance(images.detach())(targets), found.detach())  # either way


def test_blocks_of_the_published_networks():
    with torch.device("meta"):
        found = [len(blocks(each)) for each in (SqueezeNet(), MobileNetV2(), InceptionV3(), DINOv2(384, 12))]
    assert found == [10, 19, 16, 12]


def test_tokens_are_places():
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(5))

        def forward(self, images):
            x = images.flatten(2).transpose(1, 2)  # [B, P, 4]
            for block in self.blocks:
                x = block(x)
            return x[:, 0], None

    module = Tokens()
    x, y = torch.randn(2, 3, 4, 2, 2)
    assert Perceptual(Network("tokens", module, ""))(x)(y).shape == (3,)
    first = torch.nn.functional.normalize
    with torch.no_grad():
        maps = [first(module.blocks[0](each.flatten(2).transpose(1, 2)), dim=2) for each in (x, y)]
        expected = (maps[0] - maps[1]).square().sum(2).mean(1)
        only = Perceptual(Network("tokens", module, ""))
        torch.testing.assert_close((only.maps(x)[0] - only.maps(y)[0]).square().sum(1).mean(1), expected)


def test_pixels():
    x, y = torch.zeros(3, 1, 2, 2), torch.ones(1, 1, 2, 2) / 2
    assert torch.equal(pixels(y)(x), torch.full((3,), 0.25))
