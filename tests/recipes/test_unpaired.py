"""CycleGAN, CUT and FastCUT: their losses by the papers' formulas."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training.games import GAMES, load, make

from ganfast.data.columns import Spec
from ganfast.errors import InputError
from ganfast.models import cut, cyclegan
from ganfast.objectives import patch_nce
from ganfast.recipes import RECIPES

unit = functools.partial(F.normalize, dim=2, eps=1e-4)  # as the heads do


def begun(recipe, batch=2):
    """The turn of a first step, with the batches of all columns."""
    step = make(recipe, batch=batch, double=True)
    load(step)
    step.show(0)
    return step.turn


def test_patch_nce_is_the_paper_s_sum():
    queries, keys = F.normalize(torch.randn(2, 3, 7, 5, dtype=torch.float64), dim=3)
    wanted = torch.zeros(3, dtype=torch.float64)
    for k in range(3):
        for s in range(7):
            positive = (queries[k, s] @ keys[k, s] / 0.1).exp()
            negatives = sum((queries[k, s] @ keys[k, j] / 0.1).exp() for j in range(7) if j != s)
            wanted[k] -= (positive / (positive + negatives)).log() / 7
    torch.testing.assert_close(patch_nce(queries, keys, 0.1), wanted)


def test_patch_nce_of_equal_places_is_their_logarithm():
    same = F.normalize(torch.ones(2, 9, 4), dim=2)
    torch.testing.assert_close(patch_nce(same, same), torch.full((2,), 9.0).log())


@pytest.mark.parametrize("blocks, last", [(9, (12, 16)), (6, (12, 14)), (2, (12,)), (1, (12,))])
def test_the_encoder_s_maps_are_those_on_the_way_to_images(blocks, last):
    """Padded RGB, both convolutions before their subsampling, the first and the fifth of nine blocks."""
    generator = cut.Generator(3, 3, 2, blocks)
    images = torch.randn(2, 3, 12, 20)
    made, maps = generator(images, maps=True)
    assert generator.places == (0, 4, 8, *last) and generator.widths == tuple(each.shape[1] for each in maps)
    assert [each.shape[2:] for each in maps] == [(18, 26), (12, 20), (6, 10), *[(3, 5)] * len(last)]
    assert torch.equal(made, generator(images)) and torch.equal(made, generator.model(images))
    for ours, encoded, end in zip(maps, generator(images, encode=True), generator.places):
        assert torch.equal(ours, encoded) and torch.equal(ours, generator.model[: end + 1](images))


@pytest.mark.parametrize("sides", [(6, 8), (5, 2), (7, 3)])
def test_down_blurs_and_takes_every_second_place(sides):
    """By the rows and columns of numpy: (1, 2, 1)/4, reflected."""
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    wide = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect"))
    rows = (wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]) / 4
    blurred = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    torch.testing.assert_close(cut.Down(3).double()(x), blurred[:, :, ::2, ::2])


def test_up_is_bilinear():
    x = torch.randn(2, 3, 5, 1, dtype=torch.float64)
    wanted = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(cut.Up(3).double()(x), wanted)


def test_heads_are_unit_vectors_of_their_places():
    maps, places = [torch.randn(2, 3, 4, 5), torch.randn(2, 6, 2, 2)], [torch.tensor([[3, 19], [0, 7]]), None]
    places[1] = torch.tensor([[1, 0], [2, 3]])
    heads = cut.Heads([3, 6], 8)
    for found, layers, each, at in zip(heads(maps, places), heads.layers, maps, places):
        assert found.shape == (2, 2, 8)
        for image in range(2):
            for k, place in enumerate(at[image].tolist()):
                vector = layers(each[image, :, place // each.shape[3], place % each.shape[3]])
                torch.testing.assert_close(found[image, k], vector / vector.norm())


def test_losses_of_cut():
    """λ_X and λ_Y weigh means over five maps of what keys without gradients tell apart."""
    recipe = RECIPES["cut"](width=4, blocks=3, layers=2, units=16, places=1000, nce=2.0, identity=3.0)
    t = begun(recipe)
    d = recipe.discriminator(t)
    loss = recipe.generator(t)
    fake, same = t.G(t.a), t.G(t.b)
    torch.testing.assert_close(d, ((t.D(t.b) - 1).square().mean() + t.D(fake).square().mean()) / 2)
    wanted = (t.D(fake) - 1).square().mean()
    for weight, x, y in ((2.0, t.a, fake), (3.0, t.b, same)):
        maps = t.G(x, encode=True), t.G(y, encode=True)
        assert len(maps[0]) == 5
        for k in range(5):
            keys, queries = (unit(t.H.layers[k](each[k].flatten(2).mT)) for each in maps)
            wanted = wanted + weight * patch_nce(queries, keys.detach()).mean() / 5  # all places, in any order
    torch.testing.assert_close(loss, wanted)
    gradients = [torch.autograd.grad(each, [*t.G.parameters(), *t.H.parameters()]) for each in (loss, wanted)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-6)


def test_fastcut_compares_what_is_flipped_back():
    recipe = RECIPES["fastcut"](width=4, blocks=3, layers=2, units=16, places=1000)
    t = begun(recipe, batch=8)
    recipe.discriminator(t)
    flipped = t.flipped.flatten().tolist()
    assert set(flipped) == {False, True} and torch.equal(t.x, t.a)
    loss = recipe.generator(t)
    wanted = (t.D(t.made[0]) - 1).square().mean()
    for row, flip in enumerate(flipped):
        x = t.a[row : row + 1]
        made = t.G(x.flip(3) if flip else x)
        torch.testing.assert_close(t.made[0][row : row + 1], made)
        for k, (key, query) in enumerate(zip(t.G(x, encode=True), t.G(made, encode=True))):
            both = [unit(t.H.layers[k](each.flatten(2).mT)) for each in (query.flip(3) if flip else query, key)]
            wanted = wanted + 10 * patch_nce(*both).mean() / 5 / 8
    torch.testing.assert_close(loss, wanted)


def test_places_are_different_ones():
    recipe = GAMES["cut"]
    t = begun(recipe, batch=6)
    places = recipe.draw(t, torch.zeros(6, 2, 5, 8))
    assert places.shape == (6, 20) and all(len(set(row)) == 20 and max(row) < 40 for row in places.tolist())
    assert len({tuple(row) for row in places.tolist()}) == 6
    assert sorted(recipe.draw(t, torch.zeros(6, 2, 3, 4))[0].tolist()) == list(range(12))


@pytest.mark.parametrize("identity", [0.5, 0.0])
def test_losses_of_cyclegan(identity):
    recipe = RECIPES["cyclegan"](width=4, blocks=1, layers=2, pool=3, cycle=7.0, identity=identity)
    t = begun(recipe)
    loss = recipe.generators(t)
    wanted = 0
    for x, there, back, judge in ((t.a, t.G_ab, t.G_ba, t.D_b), (t.b, t.G_ba, t.G_ab, t.D_a)):
        wanted = wanted + (judge(there(x)) - 1).square().mean() + 7 * (back(there(x)) - x).abs().mean()
        wanted = wanted + 7 * identity * (back(x) - x).abs().mean()
    torch.testing.assert_close(loss, wanted)
    t.old_a, t.old_b = torch.randn(2, *t.a.shape, dtype=t.a.dtype)
    wanted = sum(
        ((judge(x) - 1).square().mean() + judge(old).square().mean()) / 2
        for judge, x, old in ((t.D_a, t.a, t.old_a), (t.D_b, t.b, t.old_b))
    )
    torch.testing.assert_close(recipe.discriminators(t), wanted)


@pytest.mark.parametrize("name", ["cyclegan", "cut", "fastcut"])
def test_gradients_of_one_pair_in_the_trainer_s_layout(name):
    """Against fp64: torch 2.13 differentiates InstanceNorm2d of one sample wrongly by a channels_last cotangent.

    That errs by the gradient's own size; rounding alone by up to 0.7 %, as a grey pixel's direction is its sign.
    """
    recipe = RECIPES[name](width=8, blocks=2, layers=2)
    found = []
    for wide in (True, False):
        layout = functools.partial(nn.Module.to, memory_format=torch.channels_last)
        step = make(recipe, batch=1, double=wide, place=None if wide else layout)
        load(step)
        step()
        found.append([p.grad.double() for each in step.state.gradients.values() for p in each.parameters])
    norms = [torch.stack([p.norm() for p in each]) for each in found]
    errors = torch.stack([(a - b).norm() for a, b in zip(*found)])
    assert (errors < 1e-2 * norms[0].clamp(min=1e-3 * norms[0].max())).all()  # those of biases before a norm are 0


def test_initial_weights():
    """N(0, 0.02²), as in the paper's 7.2, and biases 0."""
    networks = RECIPES["cyclegan"](width=16, blocks=2).networks(dict.fromkeys("ab", Spec("images", (3, 64, 64))))
    for network in networks.values():
        weights = torch.cat([p.flatten() for name, p in network.named_parameters() if name.endswith("weight")])
        assert weights.std().item() == pytest.approx(0.02, rel=0.02)
        assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("sides", [(8, 12), (20, 12), (16, 36)])
@pytest.mark.parametrize("cls", [cyclegan.Generator, cut.Generator])
def test_outputs_have_the_size_of_inputs_by_four(cls, sides):
    with torch.no_grad():
        assert cls(3, 1, 2, 1)(torch.randn(1, 3, *sides)).shape == (1, 1, *sides)


@pytest.mark.parametrize("sides", [(30, 32), (4, 16)])
@pytest.mark.parametrize("name", ["cyclegan", "cut"])
def test_other_sizes_are_refused(name, sides):
    with pytest.raises(InputError, match=rf"{name} needs sides that are multiples of 4, 8 at least, got .* \(--size\)"):
        RECIPES[name](width=2).networks(dict.fromkeys("ab", Spec("images", (3, *sides))))
