"""The head of a discriminator: minibatch features beside it, the features that it reads, spectral norm below it."""

import copy

import pytest
import torch
from torch import nn

from ganfast import nn as gnn
from ganfast.models import dcgan, mlp, resnet

DISCRIMINATORS = {
    "dcgan": (lambda: dcgan.Discriminator(16, 3, 4, batch_norm=False), (5, 3, 16, 16)),
    "resnet": (lambda: resnet.Discriminator(16, 3, 4), (5, 3, 16, 16)),
    "mlp": (lambda: mlp.Discriminator((3, 4, 4), 6), (5, 3, 4, 4)),
}


@pytest.fixture(params=DISCRIMINATORS)
def network_and_samples(request):
    make, shape = DISCRIMINATORS[request.param]
    return make().double(), torch.randn(shape, dtype=torch.float64)


def weights_of_head(network):
    head = network.get_submodule(gnn.head.head_of(network))
    return head.conv if isinstance(head, gnn.ConvAct2d) else head


@pytest.mark.parametrize("kind", ["discrimination", "stddev"])
def test_it_is_a_head_on_features_with_the_statistics_appended(network_and_samples, kind):
    network, x = network_and_samples
    plain, h = gnn.features_of(network, x)
    assert not gnn.mixes_samples(network)
    assert gnn.with_minibatch_features(network, kind, num_kernels=7, kernel_dim=2) is network
    made = next(m for m in network.modules() if isinstance(m, gnn.MinibatchFeatures))
    assert gnn.mixes_samples(network)
    torch.testing.assert_close(made.weight.sum(1), torch.zeros_like(made.weight[:, 0]))  # no offset at first
    if kind == "stddev":
        assert torch.equal(network(x), plain)
    nn.init.normal_(made.weight)
    if kind == "discrimination":
        appended = made.statistics(h.flatten(1))
        o = appended[:, h[0].numel() :]
        assert o.shape == (5, 7)
    else:
        o = made.statistics(h if h.dim() == 4 else h[:, :, None, None])[:, -1:, 0, 0]
        appended = torch.cat([h.flatten(1), o], 1)
    layer = weights_of_head(network)
    weight = torch.cat([layer.weight.flatten(1), made.weight], 1)
    wanted = nn.functional.linear(appended, weight, layer.bias).flatten()
    torch.testing.assert_close(network(x), wanted)
    scores, again = gnn.features_of(network, x)  # what the same head reads
    torch.testing.assert_close(again, h)
    assert torch.equal(scores, network(x))
    scores.sum().backward()
    assert made.weight.grad.any() and all(p.grad is not None for p in made.statistics.parameters())


def test_training_finds_the_statistics():
    """Collapsed fakes, each of them as real as any: only the batch tells."""
    network = gnn.with_minibatch_features(mlp.Discriminator(2, 100))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
    for _ in range(60):
        real = torch.randn(64, 2)
        fake = torch.randn(1, 2).expand(64, -1)
        loss = nn.functional.softplus(-network(real)).mean() + nn.functional.softplus(network(fake)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5  # a discriminator of single points stays at 2·ln 2 = 1.39


@pytest.mark.parametrize("normed", [False, True], ids=["plain", "spectral norm"])
def test_features(network_and_samples, normed):
    network, x = network_and_samples
    if normed:
        network = gnn.spectral_norm(network).eval()
    scores, h = gnn.features_of(network, x)
    assert torch.equal(scores, network(x)) and len(h) == 5
    layer = weights_of_head(network)
    torch.testing.assert_close(h.flatten(1) @ layer.weight.flatten(1).T + layer.bias, scores[:, None])
    h.mean(0).square().sum().backward()
    below = [p.grad is not None for p in network.parameters()]
    assert sum(below) == len(below) - (2 if layer.bias is not None else 1)  # all but the head's own
    assert isinstance(network.get_submodule(gnn.head.head_of(network)), nn.Module)


def test_both_compile_whole():
    network, x = gnn.spectral_norm(dcgan.Discriminator(16, 3, 4)).eval(), torch.randn(5, 3, 16, 16)
    compiled = torch.compile(lambda x: gnn.features_of(network, x), backend="eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), gnn.features_of(network, x))


def test_features_are_without_the_reference_batch():
    x = torch.randn(5, 3, 16, 16)
    network = gnn.virtual_batch_norm(dcgan.Discriminator(16, 3, 4), torch.randn(3, 3, 16, 16))
    scores, h = gnn.features_of(network, x)
    assert scores.shape == (5,) and h.shape == (5, 8, 4, 4)


@pytest.mark.parametrize(
    "module", [nn.Linear(3, 1), nn.Sequential(nn.Conv2d(3, 1, 3))], ids=["alone", "in a Sequential"]
)
def test_a_head_alone(module):
    made = gnn.with_minibatch_features(module, num_kernels=2)
    x = torch.randn(4, 3) if isinstance(module, nn.Linear) else torch.randn(4, 3, 3, 3)
    assert isinstance(made, gnn.MinibatchFeatures) or isinstance(made[0], gnn.MinibatchFeatures)
    assert made(x).shape[:2] == (4, 1)


def test_refusals():
    patches = gnn.with_minibatch_features(nn.Sequential(nn.Conv2d(3, 1, 3)))
    with pytest.raises(ValueError, match=r"scores at 4 positions; minibatch discrimination needs a head that covers h"):
        patches(torch.randn(2, 3, 4, 4))
    assert (
        gnn.with_minibatch_features(nn.Sequential(nn.Conv2d(3, 1, 3)), "stddev")(torch.randn(2, 3, 4, 4)).shape[2] == 2
    )
    with pytest.raises(ValueError, match="has no Linear and no convolution"):
        gnn.features_of(nn.Sequential(nn.ReLU()), torch.randn(2, 3))
    with pytest.raises(ValueError, match="is one layer"):
        gnn.features_of(nn.Linear(3, 1), torch.randn(2, 3))
    with pytest.raises(ValueError, match=r'kind: got \'mean\', needs "discrimination" or "stddev"'):
        gnn.with_minibatch_features(mlp.Discriminator(2, 4), "mean")
    with pytest.raises(ValueError, match="has a BatchNorm or an activation, needs to be affine"):
        gnn.with_minibatch_features(nn.Sequential(gnn.ConvAct2d(3, 1, 4)))
    with pytest.raises(ValueError, match="has no Linear and no convolution in it"):
        gnn.spectral_norm(nn.Sequential(nn.ReLU()))


def test_spectral_norm_bounds_every_weight_and_leaves_norms(network_and_samples):
    network, x = network_and_samples
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    gnn.spectral_norm(gnn.spectral_norm(network))  # once only
    for _ in range(60):
        network(x)
    layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for layer in layers:
        assert len(layer.parametrizations.weight) == 1
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, rel=0.02)
    assert not [m for m in norms if nn.utils.parametrize.is_parametrized(m)]

    network.eval()
    wanted, other = network(x), copy.deepcopy(network)
    torch.testing.assert_close(other(x), wanted)
    with torch.no_grad():
        layers[0].parametrizations.weight.original.mul_(-1)
    torch.testing.assert_close(other(x), wanted)
    network.load_state_dict(other.state_dict())
    torch.testing.assert_close(network(x), wanted)


def test_a_weight_of_zeros_gets_a_direction():
    network = gnn.spectral_norm(resnet.Discriminator(16, 3, 4, norm="none"))
    assert bool(network(torch.randn(2, 3, 16, 16)).isfinite().all())
