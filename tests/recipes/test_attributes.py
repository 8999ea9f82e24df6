"""Recipes that translate images to attributes."""

import pytest
import torch

from ganfast.data import Dataset
from ganfast.data.columns import Spec
from ganfast.errors import InputError
from ganfast.models import ganimation, stargan
from ganfast.models.translation import load_published
from ganfast.recipes import RECIPES, Trained
from ganfast.recipes.remedies import Remedies
from ganfast.training import pictures
from ganfast.training.showing import Show

DATA = {"x": Spec("images", (3, 16, 32)), "y": Spec("attributes", (4,))}


def test_stargan_has_the_keys_of_the_authors_code():
    # they number every layer; the bottleneck is that of ResNet; D has two heads, conv1 and conv2
    networks = RECIPES["stargan"](width=4, blocks=6).networks(DATA)
    keys = set(networks["G"].state_dict())
    assert {"main.0.weight", "main.1.weight", "main.1.bias", "main.9.main.0.weight", "main.14.main.4.bias"} < keys
    assert {"main.15.weight", "main.21.weight"} < keys and "main.21.bias" not in keys and len(keys) == 5 * 3 + 6 * 6 + 1
    assert networks["G"].main[0].weight.shape == (4, 3 + 4, 7, 7)
    assert networks["G"].main[15].weight.shape == (16, 8, 4, 4)
    found = {key for key in networks["D"].state_dict() if not key.startswith("main")}
    assert found == {"conv1.weight", "conv2.weight"} and networks["D"].main[2].weight.shape == (8, 4, 4, 4)


def test_stargan_takes_a_published_file(tmp_path):
    tensors = stargan.Generator(3, 5, 4, 1).state_dict()
    statistics = {"main.1.running_mean": torch.zeros(4), "main.1.num_batches_tracked": torch.tensor(7)}
    torch.save(tensors | statistics, tmp_path / "G.pth")
    found = load_published(stargan.Generator(3, 5, 4, 1), tmp_path / "G.pth").state_dict()
    assert all(torch.equal(found[key], value) for key, value in tensors.items())


def test_a_discriminator_scores_patches_and_finds_attributes():
    scores, found = stargan.Discriminator((16, 32), 3, 5, 4)(torch.randn(2, 3, 16, 32))
    assert scores.shape == (2, 1, 2, 4) and found.shape == (2, 5)
    assert len(stargan.Discriminator((256, 256), 1, 1, 1).main) == 12  # six layers at most
    remedies = Remedies(minibatch="stddev")
    judge = RECIPES["stargan"](width=4, blocks=1, remedies=remedies).build(DATA)["D"]
    assert type(judge.conv1).__name__ == "MinibatchFeatures" and isinstance(judge.conv2, torch.nn.Conv2d)
    with pytest.raises(InputError, match="give --minibatch stddev"):
        RECIPES["ganimation"](remedies=Remedies(minibatch="discrimination"))


def test_attributes_are_maps_beside_the_image():
    x, y = torch.randn(2, 3, 8, 8), torch.tensor([[1.0, 0.5], [0, 2]])
    found = stargan.with_maps(x, y)
    assert torch.equal(found[:, :3], x) and torch.equal(found[:, 3:], y[:, :, None, None].expand(2, 2, 8, 8))


def test_a_mask_keeps_what_is_there():
    generator, x = ganimation.Generator(3, 2, 4, 1), torch.rand(2, 3, 16, 16)
    y = torch.rand(2, 2)
    made, mask = generator(x, y, masks=True)
    assert mask.shape == (2, 1, 16, 16) and torch.equal(generator(x, y), made)
    color = (made - mask * x) / (1 - mask)
    assert color.abs().max() <= 1.0001 and not torch.allclose(color, x, atol=0.1)
    torch.nn.init.zeros_(generator.mask[0].weight)
    generator.mask[0].register_parameter("bias", torch.nn.Parameter(torch.tensor([100.0])))
    assert torch.equal(generator(x, y), x)


def test_questions_ask_for_the_attributes_of_others():
    recipe = RECIPES["ganimation"](width=4, blocks=1)
    columns = {"x": torch.rand(3, 3, 16, 32), "y": torch.eye(4)[:3]}
    given = recipe.question(columns, torch.Generator())
    assert torch.equal(given["x"], columns["x"]) and not (given["y"] == columns["y"]).all(1).any()
    assert sorted(given["y"].argmax(1).tolist()) == [0, 1, 2]
    nets = recipe.networks(DATA)
    assert recipe.sample(nets, None, given).shape == (3, 3, 16, 32)
    found = recipe.attributes(nets, columns["x"])
    assert found.shape == (3, 4) and found.min() >= 0 and found.max() <= 1


def cell(picture, row: int, column: int):
    """Of a grid of 16×16 pixels that is drawn at twice its size."""
    return picture[::2, ::2][18 * row :, 18 * column :][:16, :16].astype(int)


def test_pictures_show_each_attribute_switched_on_and_steps_between():
    names = ("hair=black", "hair=red", "age")
    images, attributes = torch.randint(256, (9, 16, 16, 3), dtype=torch.uint8), torch.rand(9, 3)
    data = Dataset("faces", images=images, attributes=attributes, names={"attributes": names})
    for name, rows in ("stargan", 8), ("ganimation", 16):
        specs = {"x": data.spec("images"), "y": data.spec("attributes")}
        recipe = RECIPES[name](width=2, blocks=1)
        trained = Trained(recipe, specs, recipe.networks(specs)).eval()
        show = Show(trained, [data], 0, {})
        found = show.picture()
        assert found.shape == (2 * (rows * 18 - 2), 2 * (4 * 18 - 2), 3)
        drawn = show.data(0, 8)
        x, y = (drawn[column] for column in ("images", "attributes"))
        wanted = torch.stack([torch.zeros(8), torch.ones(8), y[:, 2]], 1)  # the second attribute on
        made = pictures.to_uint8(trained(x, wanted))
        assert all(abs(cell(found, row, 2) - made[row]).max() <= 1 for row in range(8))
        assert abs(cell(found, 3, 0) - pictures.to_uint8(x)[3]).max() == 0
    last = pictures.to_uint8(trained(x, y.roll(1, 0)))
    assert all(abs(cell(found, 8 + row, 3) - last[row]).max() <= 1 for row in range(8))
