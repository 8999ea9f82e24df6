"""What --network names, and what cannot be used of it."""

import json

import pytest
import torch
from commands import small
from safetensors import safe_open
from safetensors.torch import save_file

from ganfast.cli import main
from ganfast.recipes.trained import FORMAT

BUILT = {"fields": {}, "columns": {}, "steps": 1, "stage": 0}


@pytest.mark.parametrize("command", [["generate"], ["evaluate", "--data", "digits"], ["export", "--onnx", "g.onnx"]])
@pytest.mark.parametrize(
    "metadata, words",
    [
        ({}, "no generator of this version"),
        ({"format": "ganfast-generator-1", "model": "dcgan", "config": "{}"}, "no generator of this version"),
        ({"format": FORMAT, "recipe": "os.system", "built": "{}"}, "recipe os.system, which is not installed"),
        ({"format": FORMAT, "recipe": "dcgan", "built": "{"}, "does not fit"),
        ({"format": FORMAT, "recipe": "dcgan"}, "does not fit"),
        ({"format": FORMAT, "recipe": "dcgan", "built": json.dumps(BUILT)}, "does not fit"),
        ({"format": FORMAT, "recipe": "dcgan", "built": json.dumps(BUILT | {"fields": {"x": 1}})}, "does not fit"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(command, metadata, words, fails):
    save_file({"w": torch.zeros(3)}, "mine.safetensors", metadata)
    named = [] if command[0] == "evaluate" else ["--network"]
    message = fails(command[0], *named, "mine.safetensors", *command[1:])
    assert "mine.safetensors" in message and words in message


def test_missing_cut_and_changed_files(fails, tmp_path):
    assert "nowhere is not there" in fails("generate", "--network", "nowhere")
    assert "holds no generator.safetensors" in fails("generate", "--network", ".")
    file = small.dcgan()
    whole = (tmp_path / "here" / file).read_bytes()
    (tmp_path / "here" / file).write_bytes(whole[:-100])
    assert "damaged" in fails("generate", "--network", file)
    (tmp_path / "here" / file).write_bytes(whole)
    with safe_open(file, framework="pt") as archive:
        metadata, tensors = archive.metadata(), {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118
    tensors.popitem()
    save_file(tensors, file, metadata)
    assert "does not fit" in fails("generate", "--network", file)


def test_a_checkpoint_and_a_file_are_the_run(trained, tmp_path):
    places = [trained, trained / "checkpoint-000002", trained / "generator.safetensors"]
    for k, place in enumerate(places):
        assert main(["generate", "--network", str(place), "--seeds", "3", "--outdir", f"o{k}"]) == 0
    assert len({(tmp_path / "here" / f"o{k}" / "samples" / "seed000003.png").read_bytes() for k in range(3)}) == 1
