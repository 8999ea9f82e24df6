"""The residual networks against the sums that the paper's table writes down."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganfast.errors import InputError
from ganfast.models import resnet


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(size, channels):
    generator, discriminator = resnet.Generator(size, channels, 5, 2), resnet.Discriminator(size, channels, 2)
    images = generator(torch.randn(2, 5))
    assert images.shape == (2, channels, size, size) and images.abs().max() <= 1
    assert discriminator(images).shape == (2,)


def test_the_networks_of_the_paper():
    """Features of the 64×64 networks of Gulrajani et al. 2017, appendix F, for a width of 64."""
    generator, discriminator = resnet.Generator(64, 3), resnet.Discriminator(64, 3)
    assert generator.linear.weight.shape == (4 * 4 * 512, 128)
    assert [b.conv2.out_channels for b in generator.blocks] == [512, 256, 128, 64]
    assert [b.conv2.out_channels for b in discriminator.blocks] == [128, 256, 512, 512]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in generator.modules()) == 9
    assert sum(isinstance(m, nn.GroupNorm) and m.num_groups == 1 for m in discriminator.modules()) == 8


@pytest.mark.parametrize("resample", ["up", "down"])
@pytest.mark.parametrize("widths", [(3, 3), (3, 5), (5, 3)])
def test_a_block_is_its_formula(widths, resample):
    block = resnet.ResidualBlock(*widths, resample, "layer").double()
    x = torch.randn(2, widths[0], 4, 6, dtype=torch.float64)

    def normalised(h, norm):
        mean, var = h.mean((1, 2, 3), keepdim=True), h.var((1, 2, 3), keepdim=True, unbiased=False)
        return (h - mean) / (var + norm.eps).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    def up(h):
        return h.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def down(h):
        return h.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))

    nn.init.normal_(block.norm1.weight), nn.init.normal_(block.norm2.bias)
    h = normalised(x, block.norm1).clamp(min=0)
    h = F.conv2d(up(h) if resample == "up" else h, block.conv1.weight, block.conv1.bias, padding=1)
    h = F.conv2d(normalised(h, block.norm2).clamp(min=0), block.conv2.weight, block.conv2.bias, padding=1)
    direct = x
    if widths[0] != widths[1]:
        direct = F.conv2d(direct, block.shortcut.weight, block.shortcut.bias)
    wanted = down(direct + h) if resample == "down" else up(direct) + h
    torch.testing.assert_close(block(x), wanted)


def test_samples_do_not_mix_in_the_critic():
    critic, images = resnet.Discriminator(16, 1, 2), torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(critic(images)[:1], critic(images[:1]))


def test_without_norms_a_block_starts_as_its_shortcut():
    critic = resnet.Discriminator(16, 1, 2, norm="none")
    block = critic.blocks[0]
    x = torch.randn(2, block.conv1.in_channels, 8, 8)
    torch.testing.assert_close(block(x), block.shortcut(F.avg_pool2d(x, 2)))


def test_other_sizes_are_refused():
    with pytest.raises(InputError, match="not 48"):
        resnet.Generator(48)


@pytest.mark.parametrize("network", [resnet.Generator, resnet.Discriminator])
def test_other_norms_are_refused(network):
    with pytest.raises(InputError, match="norm must be batch or layer or none, got 'instance'"):
        network(16, norm="instance")


def test_without_norms_the_image_is_cut_in_evaluation_only():
    """A tanh would saturate: a generator that once paints one colour gets no gradient any more."""
    generator, z = resnet.Generator(16, 1, 5, 2, norm="none"), torch.randn(4, 5)
    with torch.no_grad():
        generator.to_image.bias.fill_(30.0)
    images = generator(z)
    assert images.min() > 1 and torch.autograd.grad(images.sum(), generator.to_image.bias)[0] == images.numel()
    assert (generator.eval()(z) == 1).all()
