"""spade: its layer and its losses are the paper's, written out; whether pictures show their maps is measured right."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.parametrize import is_parametrized
from training.games import images, load, make, means

from ganfast import Trainer
from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics.segmentation import Segmenter, agreement, colours, fitted, painted
from ganfast.models import latents, spade
from ganfast.nn import spectral_norm
from ganfast.recipes import RECIPES
from ganfast.training.answers import answers

SPADE = RECIPES["spade"]


def test_a_block_is_of_equation_1_and_all_its_layers_have_spectral_norm():
    block = spectral_norm(spade.ResidualBlock(4, 2, 3, 5)).eval()  # no power iterations
    for layer in (block.norms[0], block.norms[1], block.beside[0]):
        layer.norm.train()
    x, maps = torch.randn(2, 4, 6, 8), spade.one_hot(torch.randint(3, (2, 12, 16)), 3)
    assert maps.sum(1).eq(1).all() and maps.shape == (2, 3, 12, 16)

    def modulated(x, layer):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        hidden = layer.shared(maps[:, :, ::2, ::2]).relu()
        return ((1 + layer.gamma(hidden)) * (x - mean) / (var + 1e-5).sqrt() + layer.beta(hidden)).relu()

    wanted, beside = x, block.beside[1](modulated(x, block.beside[0]))
    for layer, conv in zip(block.norms, block.convs):
        wanted = conv(modulated(wanted, layer))
    torch.testing.assert_close(block(x, maps), wanted + beside)
    layers = [layer for layer in block.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(layers) == 12 and all(is_parametrized(layer, "weight") for layer in layers)


@pytest.mark.parametrize("noise", [0, 5])
def test_the_generator_is_of_the_size_of_the_map(noise):
    network = spade.Generator((16, 48), 3, 2, 2, noise)
    maps, z = torch.randint(3, (2, 16, 48)), torch.randn(2, noise) if noise else None
    assert network.start == (4, 12) and network(maps, z).shape == (2, 2, 16, 48)
    other = network(maps.roll(3, 2), z)
    assert not torch.allclose(other, network(maps, z))


def test_the_losses_by_hand():
    step = make(SPADE(width=2, noise=3, layers=1, matching=7.0))
    load(step)
    nets, t = step.state.networks, step.state.loaders[0].batch(0)
    state = step.state.noise.get_state()
    z = torch.randn(6, 3, generator=step.state.noise)
    step.state.noise.set_state(state)
    for network in nets.values():
        network.eval()  # power iterations stay, as do running statistics
    with torch.no_grad():
        for network in nets.values():
            for module in network.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.train()
        fake = nets["G"](t["maps"], z)
        real, made = nets["D"](t["images"], t["maps"]), nets["D"](fake, t["maps"])
        hinge = [(1 - r[-1]).relu().mean() + (1 + f[-1]).relu().mean() for r, f in zip(real, made)]
    step()
    assert means(step)["loss_d"] == pytest.approx((sum(hinge) / 2).item(), rel=1e-3)
    assert len(real) == 2 and real[1][0].shape[2] * 2 == real[0][0].shape[2]  # half the size


def test_agreement_counts_pixels_and_classes():
    class Known(torch.nn.Module):
        """Says class 1 where an image is bright."""

        def __init__(self):
            super().__init__()
            self.last = torch.nn.Conv2d(1, 3, 1)

        def forward(self, x):
            return torch.cat([-x, x, torch.full_like(x, -9.0)], 1)

    maps = torch.tensor([[[0, 0, 1, 1]]])
    found = agreement(Known(), torch.tensor([[[[-1.0, 1, 1, 1]]]]), maps)
    assert found["pixel_accuracy"] == 0.75
    assert found["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)  # class 2 is nowhere


def test_the_segmentation_network_finds_maps_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    maps = torch.randint(2, (40, 4, 4, 1), dtype=torch.uint8).repeat_interleave(4, 1).repeat_interleave(4, 2)
    data = Dataset("squares", images=100 + 100 * maps, maps=maps)
    network = fitted(data, steps=40)
    images = painted(maps.squeeze(3).long(), colours(data))
    assert colours(data).flatten().tolist() == pytest.approx([100 / 127.5 - 1, 200 / 127.5 - 1], abs=1e-6)
    assert agreement(network, images, maps.squeeze(3).long())["pixel_accuracy"] > 0.97
    assert isinstance(fitted(data, steps=40), Segmenter)  # of the cache


def test_each_row_has_a_latent_of_its_own(tmp_path, monkeypatch):
    data = images(20)
    trainer = Trainer(SPADE(width=2, noise=3, layers=1), data, steps=1, outdir=str(tmp_path), device="cpu")
    seen = []
    monkeypatch.setattr(SPADE, "sample", lambda self, nets, z, given: seen.append(z) or z.new_zeros(len(z), 1, 16, 16))
    answers(trainer.trained, [data], 20)
    assert torch.equal(torch.cat(seen), latents(range(20), 3))


def test_it_says_what_it_needs(tmp_path):
    with pytest.raises(InputError, match="layers must be at most 1 for images of 16 pixels"):
        make(SPADE(width=2, layers=2))
    with pytest.raises(InputError, match=r"needs maps, and .* has none: give --data A --data-b B, where B holds label"):
        Trainer(SPADE(width=2, layers=1), "digits", steps=1, outdir=str(tmp_path), device="cpu")
    noise = images()
    with pytest.raises(InputError, match="noise must be at least 0"):
        SPADE(noise=-1)
    assert noise.spec("maps").classes == 4 and noise.spec("maps").shape == (16, 16)
    one_hot = spade.one_hot(noise.columns["maps"].squeeze(3).long(), 4)
    assert torch.equal(one_hot, F.one_hot(noise.columns["maps"].squeeze(3).long(), 4).movedim(3, 1).float())
