import pytest
import torch
from torch.nn import functional as F

from ganfast import nn as gnn
from ganfast.models import conditional, dcgan

SHAPE, K = (1, 16, 16), 3


@pytest.fixture
def images():
    return torch.rand(5, *SHAPE) * 2 - 1


CLASSES = torch.tensor([2, 0, 1, 1, 2])


@pytest.mark.parametrize("architecture", ["dcgan", "resnet", "mlp"])
def test_projection_is_the_inner_product_with_the_class_above_the_score_of_features(architecture, images):
    network = conditional.discriminator(SHAPE, K, 4, architecture, "projection")
    torch.nn.init.normal_(next(p for p in reversed(list(network.parameters())) if p.dim() > 1))
    _, features = gnn.features_of(network, images, CLASSES)
    weight, bias = (p.flatten(1) if p.dim() > 1 else p for p in list(network.parameters())[-2:])
    phi = features.flatten(1)
    expected = [phi[i] @ (weight[0] + weight[1 + y]) + bias[0] + bias[1 + y] for i, y in enumerate(CLASSES)]
    torch.testing.assert_close(network(images, CLASSES), torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_the_auxiliary_classifier_shares_all_but_the_last_layer_with_the_score(images):
    scores, logits = conditional.discriminator(SHAPE, K, 4, "dcgan", "aux")(images)
    assert scores.shape == (5,) and logits.shape == (5, K)
    both = dcgan.Discriminator(16, 1, 4, outputs=1 + K)
    found = both(images)
    for mine, his in zip(conditional.AuxiliaryDiscriminator(both)(images), (found[:, 0], found[:, 1:])):
        torch.testing.assert_close(mine, his)


@pytest.mark.parametrize("conditioning", ["concat", "projection"])
@pytest.mark.parametrize("architecture", ["dcgan", "resnet", "mlp"])
def test_a_score_depends_on_the_class_and_so_does_a_sample(architecture, conditioning, images):
    judge = conditional.discriminator(SHAPE, K, 8, architecture, conditioning).eval()
    maker = conditional.generator(SHAPE, 6, K, 8, architecture).eval()
    z, other = torch.randn(5, 6), (CLASSES + 1) % K
    assert maker(z, CLASSES).shape == images.shape and maker(z, CLASSES).abs().max() <= 1
    for network, x in ((judge, images), (maker, z)):
        assert not torch.allclose(network(x, CLASSES), network(x, other), rtol=1e-6, atol=1e-9)


def test_the_mlp_has_the_papers_units():
    maker = conditional.MLPGenerator((1, 28, 28))
    units = [(layer.in_features, layer.out_features) for layer in maker.modules() if isinstance(layer, torch.nn.Linear)]
    assert units == [(100, 200), (10, 1000), (1200, 1200), (1200, 784)]
    judge = conditional.MLPDiscriminator((1, 28, 28))
    units = [(layer.in_features, layer.out_features) for layer in judge.modules() if isinstance(layer, torch.nn.Linear)]
    assert units == [(784, 240 * 5), (10, 50 * 5), (290, 240 * 4), (240, 1)]


def test_the_mlps_noise_is_uniform():
    maker = conditional.MLPGenerator(SHAPE, latent_dim=4).eval()
    seen = []
    maker.of_z[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maker(torch.randn(5000, 4), torch.zeros(5000, dtype=torch.int64))
    (uniform,) = seen
    assert uniform.min() >= 0 and uniform.max() <= 1
    torch.testing.assert_close(uniform.mean(0), torch.full((4,), 0.5), atol=0.03, rtol=0)
    torch.testing.assert_close(uniform.var(0), torch.full((4,), 1 / 12), atol=0.01, rtol=0)


def test_dropout_is_behind_every_layer_but_the_last_and_off_in_evaluation(images):
    network = dcgan.Discriminator(16, 1, 4, dropout=0.5)
    rates = [getattr(layer, "p", None) for layer in network.layers]
    assert rates == [None, 0.5, None, 0.5, None]
    assert not torch.equal(network(images), network(images))
    assert torch.equal(network.eval()(images), network(images))


def test_one_hot():
    assert torch.equal(conditional.one_hot(CLASSES, K), F.one_hot(CLASSES, K).float())
