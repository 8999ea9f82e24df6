import json

import pytest
import torch
from safetensors.torch import save_file

from ganfast import models
from ganfast.errors import InputError
from ganfast.models import dcgan, mlp, resnet


@pytest.mark.parametrize(
    "generator",
    [dcgan.Generator(16, 2, 5, 2), mlp.Generator(3, 4, 8), resnet.Generator(16, 2, 5, 2)],
    ids=["dcgan", "mlp", "resnet"],
)
def test_a_saved_generator_comes_back(generator, tmp_path):
    generator.train()(torch.randn(9, generator.latent_dim))  # running statistics of their own
    models.save(generator, tmp_path / "generator.safetensors", data="digits")
    loaded = models.load(tmp_path)
    assert not loaded.training and loaded.about["data"] == "digits"
    z = torch.randn(3, generator.latent_dim)
    assert torch.equal(loaded(z), generator.eval()(z))


@pytest.mark.parametrize(
    "metadata, message",
    [
        ({}, "no ganfast generator"),
        ({"format": models.io.FORMAT, "model": "os.system", "config": "{}"}, "no ganfast generator"),
        ({"format": models.io.FORMAT, "model": "dcgan", "config": '{"size": 17}'}, "does not fit"),
        ({"format": models.io.FORMAT, "model": "dcgan", "config": '{"__class__": 1}'}, "does not fit"),
        ({"format": models.io.FORMAT, "model": "dcgan", "config": "{"}, "does not fit"),
        ({"format": models.io.FORMAT, "model": "dcgan"}, "does not fit"),
        ({"format": models.io.FORMAT, "model": "dcgan", "config": json.dumps({"size": 16})}, "does not fit"),
    ],
)
def test_a_file_of_another_kind_is_refused(metadata, message, tmp_path):
    file = tmp_path / "generator.safetensors"
    save_file({"w": torch.zeros(3)}, file, metadata)
    with pytest.raises(InputError, match=message) as caught:
        models.load(file)
    assert str(file) in str(caught.value)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        models.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(InputError, match=r"holds no generator\.safetensors"):
        models.load(tmp_path)
    whole = tmp_path / "generator.safetensors"
    models.save(mlp.Generator(2, 2, 8), whole)
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        models.load(whole)


def test_latents_depend_on_the_seed_alone():
    one = models.latents([5], 10)
    many = models.latents([1, 5, 9], 10)
    assert torch.equal(one[0], many[1]) and not torch.equal(many[0], many[1])
    cut = models.latents(range(200), 50, truncation=0.5)
    assert cut.abs().max() <= 0.5 and cut.std() > 0.2
    with pytest.raises(InputError, match="--truncation"):
        models.latents([0], 3, truncation=0.0)


class Mine(mlp.Generator):
    """Of a class that is not registered."""


def test_a_generator_that_could_not_be_loaded_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "generator.safetensors"
    with pytest.raises(InputError, match=r"Mine is not registered.*GENERATORS\['mine'\] = Mine; there are dcgan, mlp"):
        models.save(Mine(2, 2, 8), file)
    monkeypatch.setitem(models.GENERATORS, "mine", Mine)
    models.save(Mine(2, 2, 8), file)
    assert type(models.load(file)) is Mine
    for name, value in (("config", [1]), ("config", {"width": Mine}), ("config", None), ("latent_dim", None)):
        generator = Mine(2, 2, 8)
        setattr(generator, name, value)
        with pytest.raises(InputError, match=f"Mine needs an attribute {name}"):
            models.save(generator, file)
