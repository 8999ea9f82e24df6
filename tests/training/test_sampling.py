import pytest
import torch
from training.games import GAMES, play
from training.games import make as make_step

from ganfast import models
from ganfast.data import Spec
from ganfast.recipes import RECIPES, Trained
from ganfast.training import sampling


def trained(name: str, shape: tuple[int, ...], **fields) -> Trained:
    recipe = RECIPES[name](**fields)
    specs = {"x": Spec("images" if len(shape) > 1 else "points", shape), "y": Spec("labels", (), ("a", "b", "c"))}
    networks = recipe.networks(specs)
    return Trained(recipe, specs, {each: networks[each] for each in recipe.averaged})


CASES = [
    ("dcgan", (1, 16, 16), {"latent_dim": 24, "width": 4}),
    ("dcgan", (3, 32, 32), {"latent_dim": 24, "width": 5}),
    ("dcgan", (3, 64, 64), {"latent_dim": 24, "width": 6}),
    ("r3gan", (1, 16, 16), {"latent_dim": 24, "width": 4}),
    ("r3gan", (3, 32, 32), {"latent_dim": 24, "width": 5}),
    ("r3gan", (3, 64, 64), {"latent_dim": 24, "width": 6}),
    ("gan", (2,), {"latent_dim": 2, "width": 400}),
    ("gan", (3,), {"latent_dim": 5, "width": 37}),
    ("cgan", (1, 16, 16), {"latent_dim": 24, "width": 4}),
    ("infogan", (1, 16, 16), {"latent_dim": 24, "width": 4}),
    ("began", (1, 16, 16), {"latent_dim": 24, "width": 4}),
]


@pytest.mark.parametrize("name, shape, fields", CASES)
def test_a_seed_gives_the_same_bits_whatever_stands_beside_it(name, shape, fields):
    model = trained(name, shape, **fields)
    model.train()(**model.example(16)).detach()  # running statistics of their own
    model.eval()
    seeds = torch.randperm(1000)[:65].tolist()
    expected = dict(zip(seeds, sampling.sample(model, seeds, None, sampling.fill(model, seeds))))
    for batch in (1, 7, 64):
        for start in range(0, len(seeds), batch):
            part = seeds[::-1][start : start + batch]
            samples = sampling.sample(model, part, None, sampling.fill(model, part))
            assert all(torch.equal(got, expected[seed]) for seed, got in zip(part, samples, strict=True))
    twice = [seeds[3]] * 2
    assert torch.equal(sampling.sample(model, twice, None, sampling.fill(model, twice))[1], expected[seeds[3]])


def test_images_that_are_given_are_translated_one_by_one():
    """So that what one becomes does not depend on the others."""
    state = make_step(GAMES["cyclegan"]).state
    model = Trained(GAMES["cyclegan"], state.specs, state.averages)
    a = torch.rand(3, 1, 16, 16) * 2 - 1
    whole = sampling.sample(model, range(3), None, {"a": a})
    assert whole.shape == (3, 1, 16, 16) and torch.equal(whole[1:2], sampling.sample(model, [0], None, {"a": a[1:2]}))


def test_places_of_a_range_leave_no_gaps():
    assert sampling.places(range(32)) == list(range(32))
    assert sorted(sampling.places(range(5, 69))) == list(range(64))
    assert sampling.places([3, 19, 4, 35, 3]) == [3, 19, 4, 35, 51]


def test_samples_are_the_network_s():
    step = make_step(GAMES["dcgan"])
    play(step, 2)
    generator = step.state.averages["G"]
    model = Trained(GAMES["dcgan"], step.state.specs, step.state.averages)
    z = models.latents(range(21), 6)
    torch.testing.assert_close(sampling.sample(model, range(21)), generator(z).detach())


def test_slerp_keeps_the_length_and_meets_the_ends():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    path = sampling.slerp(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(path.norm(dim=1), torch.full((5,), 2.0))
    torch.testing.assert_close(path[[0, 2, 4]], torch.stack([a, (a + b) / 2**0.5, b]))
    torch.testing.assert_close(sampling.slerp(a, 2 * a, torch.tensor([0.5])), 1.5 * a[None])
