import builtins
import importlib.util
import json

import pytest
import torch

from ganfast import models
from ganfast.errors import InputError
from ganfast.models import GENERATORS, onnx

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the packages of ganfast[onnx]",
)
SMALL = {
    "dcgan": {"size": 16, "channels": 2, "latent_dim": 5, "width": 2},
    "resnet": {"size": 16, "channels": 2, "latent_dim": 5, "width": 2},
    "mlp": {"features": 3, "latent_dim": 5, "width": 8},
}


def loaded(name: str, tmp_path) -> torch.nn.Module:
    """A generator of that name as it comes from a file, with running statistics of its own."""
    generator = GENERATORS[name](**SMALL[name])
    generator.train()(2 * torch.randn(16, 5) + 1)
    models.save(generator, tmp_path / "generator.safetensors", data="digits")
    return models.load(tmp_path)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_is_one_onnx_file_of_standard_operators(name, tmp_path):
    import onnx as library
    import onnxruntime

    generator = loaded(name, tmp_path)
    difference = onnx.export(generator, tmp_path / "g.onnx")
    assert 0 <= difference < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.onnx", "generator.safetensors"]
    model = library.load(tmp_path / "g.onnx")
    library.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)] and not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata["data"] == "digits" and json.loads(metadata["config"]) == generator.config
    assert str(tmp_path).encode() not in (tmp_path / "g.onnx").read_bytes()
    assert onnx.__file__.encode() not in (tmp_path / "g.onnx").read_bytes()

    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    assert [each.shape for each in session.get_inputs()] == [["batch", 5]]
    assert session.get_outputs()[0].shape[0] == "batch"
    z = torch.randn(33, 5)  # a batch that the export never saw
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"z": z.numpy()})[0]), generator(z).detach(), rtol=1e-4, atol=1e-5
    )


def test_batch_norm_is_folded_into_a_dcgan(tmp_path):
    model = onnx.convert(loaded("dcgan", tmp_path))
    assert [node.op_type for node in model.graph.node] == [
        "Unsqueeze", "ConvTranspose", "Relu", "ConvTranspose", "Relu", "ConvTranspose", "Tanh",
    ]  # fmt: skip


def test_the_generator_stays_as_it_was(tmp_path):
    generator = loaded("dcgan", tmp_path)
    before = str(generator)
    onnx.convert(generator)
    assert str(generator) == before


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    generator = loaded("mlp", tmp_path)
    convert = onnx.convert

    def wrong(generator):
        with torch.no_grad():
            other = loaded("mlp", tmp_path)
            other.layers[-1].weight.mul_(1.1)
        return convert(other)

    monkeypatch.setattr(onnx, "convert", wrong)
    with pytest.raises(InputError, match=r"g\.onnx is not written, because it differs from torch"):
        onnx.export(generator, tmp_path / "g.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["generator.safetensors"]


@pytest.mark.parametrize("missing, written", [("onnxscript", False), ("onnx", False), ("onnxruntime", True)])
def test_missing_packages_are_said(missing, written, tmp_path, monkeypatch):
    generator = loaded("mlp", tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    bring = builtins.__import__

    def refuse(name, *rest):
        if name == "onnxruntime":
            raise ImportError(name)
        return bring(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    if written:
        assert onnx.export(generator, tmp_path / "g.onnx") is None
    else:
        with pytest.raises(InputError, match=rf"{missing}.*pip install 'ganfast\[onnx\]'"):
            onnx.export(generator, tmp_path / "g.onnx")
    assert (tmp_path / "g.onnx").is_file() == written
