"""Directions of classes and attributes: of a generator whose first number is the class, they are its first axis."""

import functools
from dataclasses import dataclass

import pytest
import torch
from commands.small import Bright, Halves
from safetensors.torch import save_file

from ganfast.data import Dataset
from ganfast.data.columns import Spec
from ganfast.errors import InputError
from ganfast.metrics.lenet import fitted
from ganfast.models import latents
from ganfast.recipes import CGAN, Recipe, Trained
from ganfast.training import directions
from ganfast.training.pictures import to_uint8
from ganfast.training.walking import FRAMES, walks


@dataclass(frozen=True, kw_only=True)
class BrightCoded(Bright):
    """The same with an encoder, into other codes than z: twice as long, and in another order."""

    name = "bright-coded"

    def encode(self, nets, x):
        z = (x[:, 0, 0, ::8].clamp(-0.999, 0.999).atanh()) / nets["G"].gain
        return 2 * torch.cat([torch.zeros(len(z), 1), z.flip(1)], 1)

    def decode(self, nets, code):
        return nets["G"](code[:, 1:].flip(1) / 2)


def trained(recipe: Recipe) -> Trained:
    specs = {"x": Spec("images", (1, 16, 16))}
    return Trained(recipe, specs, recipe.networks(specs)).eval()


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Labels say whether the left half is bright, the first attribute whether the right one is; the second is alike."""
    z = latents(range(1000, 1600), 4)
    with torch.no_grad():
        images = torch.from_numpy(to_uint8(Halves()(z)))
    attributes = torch.stack([(z[:, 1] > 0).float() * 2 - 1, torch.ones(600)], 1)
    names = {"labels": ("dark", "bright"), "attributes": ("right", "alike")}
    return Dataset("halves", images=images, labels=(z[:, 0] > 0).long(), attributes=attributes, names=names)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(directions, "fitted", functools.partial(fitted, steps=60))


@pytest.mark.parametrize("recipe, axes", [(Bright(), (0, 1)), (BrightCoded(), (2, 1))], ids=["latents", "codes"])
def test_the_direction_of_what_is_seen(recipe, axes, data):
    found = {each.name: each for each in directions.directions(trained(recipe), directions.sides(data))}
    assert list(found) == ["dark", "bright", "right"]  # an attribute that all have has no direction
    for name, axis, sign in (("bright", axes[0], 1), ("dark", axes[0], -1), ("right", axes[1], 1)):
        each = found[name]
        cosine = each.vector[axis] / each.vector.norm()
        assert cosine * sign > 0.97, name
        scale = 1 if recipe.name == "bright" else 2  # a standard deviation of the codes
        assert each.vector.norm() == pytest.approx(scale, rel=0.1)
        assert each.difference == pytest.approx(2 * (2 / torch.pi) ** 0.5, rel=0.1)  # of the halves of a Gaussian
        assert each.shares[:4] == pytest.approx([0] * 4, abs=0.1) and each.shares[-1] > 0.9
        assert list(each.shares) == sorted(each.shares) and each.accuracy > 0.9


def test_a_walk_has_its_start_in_the_middle():
    made, base, way = trained(Bright()), latents([3, 4], 4), torch.tensor([1.0, 0, 0, 0])
    rows = directions.walk(made, way, base).unflatten(0, (2, 7))
    with torch.no_grad():
        assert torch.equal(rows[:, 3], made.decode(base)) and torch.equal(rows[:, 6], made.decode(base + 3 * way))


def test_sides_are_named(data):
    name = lambda *words: [each.name for each in directions.sides(data, *words)]  # noqa: E731
    assert name() == ["dark", "bright", "right"] and name(None, "right") == ["right"]
    assert name("dark", "bright") == ["dark → bright"] and name(None, "dark") == ["dark"]
    for frm, to, words in (
        (None, "left", "--to left: halves has no class of this name: give one of dark, bright, right, alike"),
        ("right", "dark", "--from right: halves has no class of this name: give one of dark, bright."),
        ("dark", None, "--from dark: give the class to go to"),
        ("dark", "dark", "--from dark: give the class to go to"),
        (None, "alike", "halves has too few pictures on one side of alike"),
    ):
        with pytest.raises(InputError, match=words):
            directions.sides(data, frm, to)
    with pytest.raises(InputError, match="plain has images of neither classes nor attributes"):
        directions.sides(Dataset("plain", images=data.samples))


def test_where_the_class_is_given_there_is_no_direction(data):
    specs = {"x": Spec("images", (1, 16, 16)), "y": Spec("labels", (), ("dark", "bright"))}
    recipe = CGAN(width=2, latent_dim=4)
    made = Trained(recipe, specs, {"G": recipe.networks(specs)["G"]})
    with pytest.raises(InputError, match="recipe cgan makes samples of more than latents, or of none"):
        next(directions.directions(made, directions.sides(data)))


def test_what_was_saved_is_walked_in_the_report(tmp_path):
    made, file = trained(Bright()), tmp_path / directions.FILE
    assert [title for title, _, _ in walks(made, tmp_path)] == ["From seed to seed"]
    each = directions.Direction("up", torch.tensor([1.0, 0, 0, 0]), 1.5, latents([0], 4), (0.0,) * 7, 0.9)
    directions.save([each], file)
    assert torch.equal(directions.load(file, 4)["up"], each.vector)
    (_, seeds, between), (title, rows, along) = walks(made, tmp_path)
    assert len(seeds) * FRAMES == len(between) and rows == ["up"] and title.startswith("Along directions")
    assert torch.equal(along, directions.walk(made, each.vector, latents([0], 4)))
    with pytest.raises(InputError, match="is of codes of another size than 5: make it again"):
        directions.load(file, 5)
    save_file({"up": torch.zeros(4)}, file)
    with pytest.raises(InputError, match="cannot be read"):
        list(walks(made, tmp_path))
    file.write_bytes(b"cut off")
    with pytest.raises(InputError, match="cannot be read"):
        directions.load(file, 4)
