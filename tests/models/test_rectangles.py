"""Networks of images that are wider than high, or higher than wide."""

import pytest
import torch
from torch import nn

import ganfast
from ganfast import penalty
from ganfast.errors import InputError
from ganfast.models import began, cyclegan, dcgan, infogan, resnet, sizes
from ganfast.nn import FusedSequential

SIZES = [(16, 32), (64, 32), (32, 40), (16, 64)]


@pytest.mark.parametrize("size", SIZES)
def test_shapes(size):
    z, features = torch.randn(2, 5), dcgan.stage_widths(size, 2)[0]
    for family in (dcgan, resnet):
        images = family.Generator(size, 3, 5, 2)(z)
        assert images.shape == (2, 3, *size) and images.abs().max() <= 1
        assert family.Discriminator(size, 3, 2)(images).shape == (2,)
    assert began.Decoder(size, 3, 5, 2)(z).shape == began.Autoencoder(size, 3, 5, 2)(images).shape == images.shape
    trunk = infogan.Discriminator(size, 3, 2, "dcgan")(images, features=True)[1]
    assert trunk.shape == (2, features, *dcgan.kernel(size))
    ours, small = infogan.Discriminator(size, 3, 2)(images, features=True)
    assert infogan.Generator(size, 3, 5, 2)(z).shape == images.shape and small.shape == (2, 32, 1, 1)
    assert ours.shape == (2,) and infogan.Recognition(32, 4, 2)(small)[0].shape == (2, 4)
    logits, codes = infogan.Recognition(features, 4, 2, kernel=dcgan.kernel(size))(trunk)
    assert logits.shape == (2, 4) and codes.shape == (2, 2)
    assert cyclegan.Generator(3, 1, 2, 1)(images).shape == (2, 1, *size)


@pytest.mark.parametrize("family", [dcgan, resnet])
def test_a_square_by_two_sides_is_one_by_a_number(family):
    for cls in (family.Generator, family.Discriminator):
        one, other = (torch.random.manual_seed(3) and cls(size=size, width=2) for size in (32, [32, 32]))
        assert one.config == other.config and one.config["size"] == 32
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("cls", [dcgan.Generator, dcgan.Discriminator, resnet.Generator, resnet.Discriminator])
def test_config_rebuilds_a_network(cls):
    network = cls(size=[16, 24], width=2)
    again = cls(**network.config)
    again.load_state_dict(network.state_dict())
    assert again.config == network.config and network.config["size"] == (16, 24)


def test_features_are_counted_by_the_shorter_side():
    for size in ((64, 32), (32, 64), (32, 128)):
        assert dcgan.stage_widths(size, 4) == dcgan.stage_widths(32, 4)
    assert [sizes.smallest(size, 4, "A GAN") for size in ((64, 128), (128, 64), (64, 80))] == [(4, 8), (8, 4), (4, 5)]


@pytest.mark.parametrize("size, said", [((48, 64), "not 48"), ((16, 18), "multiple of 4 beside one of 16 .* not 18")])
@pytest.mark.parametrize("cls", [dcgan.Generator, dcgan.Discriminator, resnet.Generator, began.Decoder, began.Encoder])
def test_impossible_sizes_are_refused(cls, size, said):
    for each in (size, size[::-1]):
        with pytest.raises(InputError, match=rf"{said}.* \(--size\)\.$"):
            cls(size=each, width=2)


def plain_critic(size) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 1, [side // 4 for side in size]), nn.Flatten(0),
    )  # fmt: skip


def test_penalties_are_those_of_double_backward():
    """In fp64, with the merged step and as a term of a loss; layers of torch, and ours."""
    size = 16, 24
    real, fake, eps = torch.randn(3, 3, *size).double(), torch.randn(3, 3, *size).double(), torch.rand(3).double()
    torch.manual_seed(0)
    ours = dcgan.Discriminator(size, 3, 4, batch_norm=False).double()
    fused = plain_critic(size).double()
    ganfast.fuse(fused)
    for critic in (plain_critic(size).double(), fused, ours):
        mixed = (eps.view(-1, 1, 1, 1) * real + (1 - eps.view(-1, 1, 1, 1)) * fake).requires_grad_()
        (g,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        wanted = critic(fake).mean() - critic(real).mean() + 10 * (g.flatten(1).norm(dim=1) - 1).square().mean()
        of_all = torch.autograd.grad(wanted, list(critic.parameters()), allow_unused=True)  # of biases: none
        critic.zero_grad()
        step = penalty.wgan_gp_step(critic, real, fake, 10.0, eps=eps)
        torch.testing.assert_close(step.loss, wanted)
        for parameter, gradient in zip(critic.parameters(), of_all, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("training", [True, False])
def test_fused_layers_are_the_plain_ones(training):
    """Generator of 1×1 → 4×6 → 8×12, and a critic with batch normalisation back to 1×1: outputs and all gradients."""
    plain = nn.Sequential(
        nn.ConvTranspose2d(5, 6, (4, 6), bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 3, 4, 2, 1), nn.Tanh(),
        nn.Conv2d(3, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 2, (4, 6)),
    ).double()  # fmt: skip
    nn.init.uniform_(plain[1].running_var, 0.5, 2), nn.init.normal_(plain[1].running_mean)
    plain.train(training)
    fused, chain = nn.Sequential(*plain), FusedSequential(*plain)
    ganfast.fuse(fused)
    chain.chain = True  # the operators, also on a CPU
    x, c = torch.randn(3, 5, 1, 1).double().requires_grad_(), torch.randn(3, 2, 1, 1).double()
    found = []
    for network in (plain, fused, chain):
        state = {key: value.clone() for key, value in plain.state_dict().items()}
        y = network(x)
        found.append([y, *torch.autograd.grad((y * c).sum(), [x, *plain.parameters()]), *plain.buffers()])
        found[-1] = [each.detach().clone() for each in found[-1]]
        plain.load_state_dict(state)
    torch.testing.assert_close(found[1:], 2 * found[:1])
