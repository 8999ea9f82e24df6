"""``ganfast evaluate RUN --battle OTHER``."""

import json
import shutil

import pytest
import torch
from commands import small
from commands.tiny import TINY
from safetensors.torch import load_file, save_file

from ganfast.cli import main
from ganfast.recipes import FGAN, LSGAN
from ganfast.training.battle import Fighter


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / trained.name)


def test_a_run_ties_with_itself(run, capsys):
    assert main(["evaluate", str(run), "--battle", str(run), "--samples", "70"]) == 0
    assert "r_test" in (out := capsys.readouterr().out) and f"kept in {run}/metric-battle.jsonl" in out
    (row,) = [json.loads(line) for line in (run / "metric-battle.jsonl").read_text().splitlines()]
    assert row["winner"] == "tie" and row["samples"] == 70 and row["other"] == str(run) and row["step"] == 2
    assert row["error_test"] == row["other_error_test"] and row["error_sample"] == row["other_error_sample"]
    assert not (run / "metric-classes.jsonl").exists()


def test_a_discriminator_that_believes_everything_loses(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    for place, bias in ((run, -0.2), (other, 100.0)):  # one doubts, the other takes all for real
        for saved in place.glob("checkpoint-*"):
            file = saved / "D.safetensors"
            tensors = load_file(file)
            (name,) = [name for name, values in tensors.items() if values.shape == (1,) and "bias" in name]
            save_file(tensors | {name: torch.full((1,), bias)}, file)
    assert main(["evaluate", str(run), "--battle", str(other), "--samples", "128"]) == 0
    row = json.loads((run / "metric-battle.jsonl").read_text())
    assert row["other_error_test"] == 0 and row["other_error_sample"] == 1 and row["r_test"] is None


def test_networks_are_those_of_the_checkpoint_and_not_averages(run):
    fighter = Fighter(run)
    (saved,) = run.glob("checkpoint-*")
    for name, network in fighter.networks.items():
        stored = load_file(saved / f"{name}.safetensors")
        assert all(torch.equal(values, stored[key]) for key, values in network.state_dict().items())
    averages = load_file(saved / "generator.safetensors")
    assert any(not torch.equal(averages[f"G.{k}"], v) for k, v in load_file(saved / "G.safetensors").items())


def test_where_a_score_above_means_real():
    assert LSGAN(a=-1, b=1).threshold == 0 and FGAN(divergence="kullback-leibler").threshold == 1


def test_who_cannot_take_part(run, tmp_path, fails):
    assert "holds no checkpoint" in fails("evaluate", run, "--battle", small.dcgan())
    second = {"sgan": ["--data-b", "few:2:digits"], "cogan": ["--data-b", "negatives:digits"]}
    for recipe in ("wgan", "cgan", "sgan", "pacgan", "cogan", "dcgan"):
        words = [*TINY, *second.get(recipe, []), *(["--size", "32"] if recipe == "dcgan" else [])]
        assert main(["train", recipe, "--data", "digits", "--outdir", str(tmp_path / recipe), *words]) == 0
        (other,) = (tmp_path / recipe).iterdir()
        message = fails("evaluate", run, "--battle", other, "--samples", "8")
        assert ("give runs of one shape" if recipe == "dcgan" else "tells real from fake by a sample alone") in message
