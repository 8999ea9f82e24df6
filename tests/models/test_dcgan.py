from itertools import pairwise

import pytest
import torch
from torch import nn

from ganfast.errors import InputError
from ganfast.models import dcgan


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_shapes(size, channels):
    generator, discriminator = dcgan.Generator(size, channels, 7, 2), dcgan.Discriminator(size, channels, 2)
    images = generator(torch.randn(2, 7))
    assert images.shape == (2, channels, size, size) and images.abs().max() <= 1
    assert discriminator(images).shape == (2,)


def test_the_network_of_the_paper():
    """Features of fig. 1 of the paper at 64×64, and BatchNorm everywhere but at G's output and D's input and output."""
    generator, discriminator = dcgan.Generator(64, 3, 100, 128), dcgan.Discriminator(64, 3, 64)
    convolutions = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [c.in_channels for c in convolutions] == [100, 1024, 512, 256, 128]
    assert [c.stride for c in convolutions] == [(1, 1)] + [(2, 2)] * 4
    assert [m.num_features for m in generator.modules() if isinstance(m, nn.BatchNorm2d)] == [1024, 512, 256, 128]
    convolutions = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512, 1]
    assert [m.num_features for m in discriminator.modules() if isinstance(m, nn.BatchNorm2d)] == [128, 256, 512]


def plain_generator(size, channels, latent_dim, width):
    """The same network in plain PyTorch, as a reader of the paper writes it."""
    widths = dcgan.stage_widths(size, width)
    layers = [nn.ConvTranspose2d(latent_dim, widths[0], 4, 1, 0, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    for a, b in pairwise(widths):
        layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Tanh())


def plain_discriminator(size, channels, width):
    widths = dcgan.stage_widths(size, width)[::-1]
    layers = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4), nn.Flatten(0))


@pytest.mark.parametrize("training", [True, False])
def test_equal_to_plain_pytorch(training):
    """Outputs, gradients and running statistics, in fp64."""
    for ours, plain, x in (
        (dcgan.Generator(32, 3, 9, 4), plain_generator(32, 3, 9, 4), torch.randn(6, 9)),
        (dcgan.Discriminator(32, 3, 4), plain_discriminator(32, 3, 4), torch.randn(6, 3, 32, 32)),
    ):
        ours.double().train(training), plain.double().train(training)
        plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values())))
        x = x.double()
        a, b = ours(x), plain(x if x.ndim == 4 else x[:, :, None, None])
        torch.testing.assert_close(a, b)
        weights = torch.randn_like(a)
        ga = torch.autograd.grad((a * weights).sum(), ours.parameters())
        gb = torch.autograd.grad((b * weights).sum(), plain.parameters())
        for one, other in zip(ga, gb):
            torch.testing.assert_close(one, other)
        for one, other in zip(ours.state_dict().values(), plain.state_dict().values()):
            torch.testing.assert_close(one, other)


def test_initialisation():
    torch.manual_seed(0)
    generator = dcgan.Generator(64, 3, 100, 32)
    for module in generator.modules():
        if isinstance(module, nn.ConvTranspose2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.03)
            assert abs(module.weight.mean().item()) < 1e-3
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.02) and not module.bias.any()


@pytest.mark.parametrize("size", [0, 8, 48, 100, 512])
def test_other_sizes_are_refused(size):
    with pytest.raises(InputError, match=f"not {size}"):
        dcgan.Generator(size)


def test_without_batch_norm_samples_do_not_mix():
    critic = dcgan.Discriminator(16, 1, 2, batch_norm=False)
    images = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(critic(images)[:1], critic(images[:1]))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())
    assert critic.config["batch_norm"] is False and critic.layers[1].conv.bias is not None
