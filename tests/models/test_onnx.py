import builtins
import importlib.util
import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from ganfast import load
from ganfast.data.columns import Images, Labels, Points, Samples, Spec
from ganfast.errors import InputError
from ganfast.models import onnx
from ganfast.recipes import BEGAN, CGAN, DCGAN, GAN, RECIPES, WGANGP, CycleGAN, InfoGAN, Recipe, Trained
from ganfast.recipes.remedies import Remedies
from ganfast.recipes.trained import save

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the packages of ganfast[onnx]",
)


@dataclass(frozen=True, kw_only=True)
class Everything(Recipe):
    """Given an image, a class by Embedding and numbers, besides latents."""

    name = "everything"
    columns = {"x": Images(), "y": Labels()}
    given = {"x": Images(), "y": Labels(), "u": Spec("attributes", (3,))}
    latent_dim: int = 2

    def networks(self, data):
        return {"G": nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.Conv2d(3, 2, 3, padding=1), nn.Tanh()),
                "E": nn.Embedding(data["y"].classes, 2)}  # fmt: skip

    averaged = ("G", "E")

    def sample(self, nets, z, given):
        style = (nets["E"](given["y"]) * given["u"][:, :2] + z)[:, :, None, None]
        return nets["G"](torch.cat([given["x"], given["x"][:, :1] * style], 1))


@dataclass(frozen=True, kw_only=True)
class Decomposed(Recipe):
    """Decomposes a matrix, for which ONNX has no operator."""

    name = "decomposed"
    latent_dim: int = 2

    def networks(self, data):
        return {"G": nn.Linear(2, 256)}

    def sample(self, nets, z, given):
        return torch.linalg.svd(nets["G"](z).unflatten(1, (16, 16)))[0]


KINDS = {
    Images.kind: Spec("images", (1, 16, 16)),
    Points.kind: Spec("points", (3,)),
    Labels.kind: Spec("labels", (), ("a", "b", "c")),
}
SMALL = {
    "dcgan": (DCGAN(width=2, latent_dim=5), {"z": ["batch", 5]}),
    "resnet": (WGANGP(width=2, latent_dim=5, architecture="resnet"), {"z": ["batch", 5]}),
    "remedies": (DCGAN(width=2, latent_dim=5, remedies=Remedies(virtual_batch_norm=3)), {"z": ["batch", 5]}),
    "mlp": (GAN(width=8, latent_dim=5), {"z": ["batch", 5]}),
    "labels": (CGAN(width=2, latent_dim=5), {"z": ["batch", 5], "y": ["batch"]}),
    "codes": (InfoGAN(width=2, latent_dim=5), {"z": ["batch", 5], "c": ["batch"], "u": ["batch", 2]}),
    "images": (CycleGAN(width=2, blocks=1, layers=1, direction="ba"), {"b": ["batch", 1, "height", "width"]}),
    "two networks": (BEGAN(width=2, latent_dim=5), {"z": ["batch", 5]}),
    "everything": (
        Everything(),
        {"z": ["batch", 2], "x": ["batch", 1, 16, 16], "y": ["batch"], "u": ["batch", 3]},
    ),
}


@pytest.fixture(autouse=True)
def recipes(monkeypatch):
    for recipe in (Everything, Decomposed):
        monkeypatch.setitem(RECIPES, recipe.name, recipe)


def loaded(recipe: Recipe, tmp_path) -> Trained:
    """A recipe as it comes from a file, with weights far from zero and running statistics of its own."""
    points = isinstance(recipe, GAN)
    kinds = KINDS | {Samples.kind: KINDS[Points.kind if points else Images.kind]}
    specs = {name: kinds[column.kind] for name, column in recipe.columns.items()}
    networks = recipe.build(specs)
    trained = Trained(recipe, specs, {name: networks[name] for name in recipe.averaged})
    for parameter in trained.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    with torch.no_grad():
        trained.train()(**trained.example(16))
    save(trained, tmp_path / "generator.safetensors", data="digits")
    return load(tmp_path)


@pytest.mark.parametrize("name", SMALL)
def test_every_recipe_is_one_onnx_file_of_standard_operators(name, tmp_path):
    import onnx as library
    import onnxruntime

    recipe, inputs = SMALL[name]
    trained = loaded(recipe, tmp_path)
    difference = onnx.export(trained, tmp_path / "g.onnx")
    assert 0 <= difference < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.onnx", "generator.safetensors"]
    model = library.load(tmp_path / "g.onnx")
    library.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)] and not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata == trained.about and metadata["data"] == "digits"
    assert json.loads(metadata["built"])["columns"].keys() == recipe.columns.keys()
    assert str(tmp_path).encode() not in (tmp_path / "g.onnx").read_bytes()
    assert onnx.__file__.encode() not in (tmp_path / "g.onnx").read_bytes()

    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    assert {each.name: each.shape for each in session.get_inputs()} == inputs
    assert [each.name for each in session.get_inputs()] == list(trained.arguments)
    (output,) = session.get_outputs()
    assert output.name == "samples" and output.shape[0] == "batch"
    given = trained.example(33, seed=1, larger=3)  # a batch, and sides of images, that the export never saw
    got = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), trained(**given), rtol=1e-4, atol=1e-5)


def test_only_what_samples_is_in_the_file(tmp_path):
    """Of two generators the one of the direction; of an autoencoder nothing."""
    recipe, _ = SMALL["images"]
    trained = loaded(recipe, tmp_path)
    model = onnx.convert(trained)
    numbers = sum(torch.Size(each.dims).numel() for each in model.graph.initializer)
    assert numbers < 1.2 * sum(p.numel() for p in trained.networks["G_ba"].parameters())


def test_batch_norm_is_folded_into_a_dcgan(tmp_path):
    model = onnx.convert(loaded(SMALL["dcgan"][0], tmp_path))
    assert [node.op_type for node in model.graph.node] == [
        "Unsqueeze", "ConvTranspose", "Relu", "ConvTranspose", "Relu", "ConvTranspose", "Tanh",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["dcgan", "labels"])
def test_the_recipe_stays_as_it_was(name, tmp_path):
    trained = loaded(SMALL[name][0], tmp_path)
    before = str(trained), {key: value.clone() for key, value in trained.state_dict().items()}
    onnx.convert(trained)
    assert str(trained) == before[0]
    for key, value in trained.state_dict().items():
        assert torch.equal(value, before[1][key])


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    trained = loaded(SMALL["labels"][0], tmp_path)
    convert = onnx.convert

    def wrong(trained):
        other = load(tmp_path)
        with torch.no_grad():
            next(other.parameters()).mul_(1.5)
        return convert(other)

    monkeypatch.setattr(onnx, "convert", wrong)
    with pytest.raises(InputError, match=r"g\.onnx is not written, because it differs from torch"):
        onnx.export(trained, tmp_path / "g.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["generator.safetensors"]


def test_a_recipe_that_cannot_be_exported_is_one_sentence(tmp_path):
    trained = loaded(Decomposed(), tmp_path)
    with pytest.raises(InputError, match="torch cannot export this recipe as ONNX") as caught:
        onnx.export(trained, tmp_path / "g.onnx")
    assert "\n" not in str(caught.value) and "ganfast.load" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["generator.safetensors"]


def test_samples_that_are_all_zero_agree(tmp_path):
    trained = loaded(SMALL["mlp"][0], tmp_path)
    with torch.no_grad():
        list(trained.parameters())[-1].zero_()
    assert onnx.export(trained, tmp_path / "g.onnx") == 0


def test_a_directory_that_is_not_there(tmp_path):
    trained = loaded(SMALL["mlp"][0], tmp_path)
    with pytest.raises(InputError, match=r"nowhere is no directory: give another file \(--onnx\)"):
        onnx.export(trained, tmp_path / "nowhere" / "g.onnx")


@pytest.mark.parametrize("missing, written", [("onnxscript", False), ("onnx", False), ("onnxruntime", True)])
def test_missing_packages_are_said(missing, written, tmp_path, monkeypatch):
    trained = loaded(SMALL["mlp"][0], tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    bring = builtins.__import__

    def refuse(name, *rest):
        if name == "onnxruntime":
            raise ImportError(name)
        return bring(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    if written:
        assert onnx.export(trained, tmp_path / "g.onnx") is None
    else:
        with pytest.raises(InputError, match=rf"{missing}.*pip install 'ganfast\[onnx\]'"):
            onnx.export(trained, tmp_path / "g.onnx")
    assert (tmp_path / "g.onnx").is_file() == written
