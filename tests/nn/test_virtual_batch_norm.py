"""Virtual batch normalisation against its definition, and what a network with it keeps."""

import copy
import importlib.util
import io

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from ganfast import nn as gnn
from ganfast.models import dcgan


def small(dtype=torch.float64):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Tanh(),
        nn.Linear(4, 1),
    ).to(dtype)  # fmt: skip


def converted(rows=3, dtype=torch.float64):
    return gnn.virtual_batch_norm(small(dtype), torch.randn(rows, 2, 4, 4, dtype=dtype))


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 4, 3)])
def test_statistics_are_those_of_the_reference_and_of_the_sample(shape):
    """A reference of 3 samples and the sample itself: the mean and the variance of those 4, by torch."""
    x = torch.randn(7, *shape, dtype=torch.float64) * 3 + 100
    norm = gnn.VirtualBatchNorm({1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)](5).double(), 3)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    plain = lambda x: nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)  # noqa: E731
    wanted = torch.cat([plain(x[:3]), *(plain(torch.cat([x[:3], row[None]]))[3:] for row in x[3:])])
    torch.testing.assert_close(norm(x), wanted)


def test_large_means_do_not_cancel():
    x = torch.randn(6, 3, 8, 8)
    norm = gnn.VirtualBatchNorm(nn.BatchNorm2d(3), 2)
    torch.testing.assert_close(norm(x + 4096), norm(x), atol=2e-3, rtol=0)


def test_a_sample_does_not_see_its_neighbours_and_modes_are_alike():
    network, x = converted(), torch.randn(5, 2, 4, 4, dtype=torch.float64)
    together = network(x)
    assert together.shape == (5, 1) and not gnn.mixes_samples(network)
    torch.testing.assert_close(torch.cat([network(row[None]) for row in x]), together)
    torch.testing.assert_close(network.eval()(x), together)


def test_statistics_are_those_of_the_weights_of_each_call():
    """One that keeps the reference's statistics for a while, or drops them at every second call, fails here."""
    network, x = converted(), torch.randn(5, 2, 4, 4, dtype=torch.float64)
    reference = network.reference_0
    for _ in range(4):
        fresh = gnn.virtual_batch_norm(small(), reference)
        fresh.load_state_dict(network.state_dict())
        torch.testing.assert_close(network(x), fresh(x))
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * torch.randn_like(p))


def test_gradients_flow_through_the_reference_s_statistics():
    network, x = converted(), torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    network.reference_0.requires_grad_()
    assert gradcheck(lambda x, reference: network(x), (x, network.reference_0))
    assert gradgradcheck(lambda x, reference: network(x), (x, network.reference_0), fast_mode=True)


def test_copies_and_files_have_the_reference():
    network, x = converted(), torch.randn(5, 2, 4, 4, dtype=torch.float64)
    ema, wanted = copy.deepcopy(network), network(x)
    network.reference_0.add_(1)
    torch.testing.assert_close(ema(x), wanted)
    assert not torch.allclose(network(x), wanted)
    assert {"1.weight", "1.bias", "reference_0"} < network.state_dict().keys()
    assert not [key for key in network.state_dict() if "running" in key or "num_batches" in key]
    other, file = converted(), io.BytesIO()
    other.load_state_dict(ema.state_dict())
    torch.testing.assert_close(other(x), wanted)
    torch.save(network, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x), network(x))


def test_parameters_are_kept_and_further_arguments_have_their_own_reference():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.f, self.bn = nn.Embedding(4, 6), nn.Linear(6, 6), nn.BatchNorm1d(6)

        def forward(self, x, y):
            h = self.bn(self.f(x) + self.e(y))
            return h.sum(1), h

    network = Conditional()
    weight = network.bn.weight
    gnn.virtual_batch_norm(network, torch.randn(3, 6), torch.tensor([0, 3, 1]))
    scores, h = network(torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0]))
    assert network.bn.weight is weight and scores.shape == (5,) and h.shape == (5, 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fused_layers_half_precision_and_channels_last(dtype):
    images = torch.randn(6, 3, 16, 16)
    network = gnn.virtual_batch_norm(dcgan.Discriminator(16, 3, 8), images[:3])
    wanted = network(images[3:])
    assert isinstance(network.layers[1].bn, gnn.VirtualBatchNorm)
    half = copy.deepcopy(network).to(dtype).to(memory_format=torch.channels_last)
    got = half(images[3:].to(dtype, memory_format=torch.channels_last))
    torch.testing.assert_close(
        got.float(), wanted, atol=60 * torch.finfo(dtype).eps * float(wanted.abs().max()), rtol=0
    )


def test_it_compiles_whole():
    images = torch.randn(5, 3, 16, 16)
    network = gnn.virtual_batch_norm(dcgan.Discriminator(16, 3, 4), images[:2])
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(images), network(images))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs the packages of ganfast[onnx]")
def test_onnx(tmp_path):
    from ganfast.models import onnx

    class Trained(nn.Module):
        arguments = ("z",)

        def __init__(self):
            super().__init__()
            self.G = gnn.virtual_batch_norm(dcgan.Generator(16, 1, 4, 4), torch.randn(3, 4))

        def axes(self, name):
            return {0: "batch"}

        def example(self, batch, seed=0, larger=0):
            return {"z": torch.randn(batch, 4, generator=torch.Generator().manual_seed(seed))}

        def forward(self, z):
            return self.G(z)

    assert onnx.export(Trained(), tmp_path / "g.onnx") < onnx.BOUND


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gnn.virtual_batch_norm(nn.Sequential(nn.Linear(2, 2)), torch.ones(2, 2)), "has no BatchNorm in it"),
        (lambda: gnn.virtual_batch_norm(small(), torch.ones(1, 2, 4, 4)), r"got batches of \[1\] rows"),
        (lambda: gnn.virtual_batch_norm(small()), r"reference: got batches of \[\] rows"),
        (lambda: gnn.virtual_batch_norm(converted(), torch.ones(2, 2, 4, 4)), "is converted already"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
