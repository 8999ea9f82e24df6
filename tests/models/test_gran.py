"""The recurrent generator."""

import torch

from ganfast.models import gran
from ganfast.recipes import DCGAN, GRAN
from ganfast.recipes.base import can


def small(timesteps: int) -> gran.Generator:
    torch.manual_seed(0)
    generator = gran.Generator((16, 16), 1, 5, 4, timesteps).double().eval()
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    return generator


def test_the_canvas_is_the_sum_of_what_is_drawn():
    generator, z = small(3), torch.randn(2, 5, dtype=torch.double)
    h = torch.tanh(z @ generator.hidden.weight.T + generator.hidden.bias)
    first = generator.decoder(torch.cat([h, torch.zeros_like(h)], 1))
    second = generator.decoder(torch.cat([h, torch.tanh(generator.encoder(first))], 1))
    third = generator.decoder(torch.cat([h, torch.tanh(generator.encoder(second))], 1))
    drawn = generator.canvases(z)
    for found, expected in zip(drawn, (first, first + second, first + second + third), strict=True):
        assert torch.allclose(found, expected.tanh(), atol=1e-12)
    assert torch.equal(generator(z), drawn[-1]) and len(small(1).canvases(z)) == 1
    assert not torch.allclose(first, second)


def test_the_last_of_a_strip_is_the_sample():
    recipe, z = GRAN(timesteps=2), torch.randn(3, 5, dtype=torch.double)
    nets = {"G": small(2)}
    strip = recipe.strip(nets, z, {})
    assert strip.shape == (2, 3, 1, 16, 16) and torch.equal(strip[-1], recipe.sample(nets, z, {}))
    assert can(recipe, "strip") and not can(DCGAN(), "strip")
