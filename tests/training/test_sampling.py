import pytest
import torch

from ganfast import models
from ganfast.models import dcgan, mlp, resnet
from ganfast.training import sampling


def networks():
    for size, channels, width in ((16, 1, 4), (32, 3, 5), (64, 3, 6)):
        yield f"dcgan-{size}-{channels}-{width}", dcgan.Generator(size, channels, 24, width)
        yield f"resnet-{size}-{channels}-{width}", resnet.Generator(size, channels, 24, width)
    yield "mlp-2-400", mlp.Generator(2, 2, 400)
    yield "mlp-3-37", mlp.Generator(3, 5, 37)


@pytest.mark.parametrize("generator", [pytest.param(net, id=name) for name, net in networks()])
def test_a_seed_gives_the_same_bits_whatever_stands_beside_it(generator):
    generator.train()(torch.randn(16, generator.latent_dim))  # running statistics of their own
    generator.eval()
    seeds = torch.randperm(1000)[:65].tolist()
    expected = dict(zip(seeds, sampling.sample(generator, seeds, None, "cpu")))
    for batch in (1, 7, 64):
        for part, samples in sampling.batches(generator, reversed(seeds), None, "cpu", batch):
            assert len(part) <= batch
            assert all(torch.equal(got, expected[seed]) for seed, got in zip(part, samples, strict=True))
    assert torch.equal(sampling.sample(generator, [seeds[3]] * 2, None, "cpu")[1], expected[seeds[3]])


def test_places_of_a_range_leave_no_gaps():
    assert sampling.places(range(32)) == list(range(32))
    assert sorted(sampling.places(range(5, 69))) == list(range(64))
    assert sampling.places([3, 19, 4, 35, 3]) == [3, 19, 4, 35, 51]


def test_samples_are_the_network_s():
    generator = dcgan.Generator(16, 1, 6, 4).eval()
    z = models.latents(range(21), 6)
    torch.testing.assert_close(sampling.sample(generator, range(21), None, "cpu"), generator(z).detach())


def test_slerp_keeps_the_length_and_meets_the_ends():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    path = sampling.slerp(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(path.norm(dim=1), torch.full((5,), 2.0))
    torch.testing.assert_close(path[[0, 2, 4]], torch.stack([a, (a + b) / 2**0.5, b]))
    torch.testing.assert_close(sampling.slerp(a, 2 * a, torch.tensor([0.5])), 1.5 * a[None])
