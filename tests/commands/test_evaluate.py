import json
import shutil
from pathlib import Path

import pytest
from commands import small

from ganfast.cli import main
from ganfast.data.columns import Spec
from ganfast.recipes import CGAN


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / trained.name)


def rows(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metric-classes.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_scores_of_a_run_stay_in_it(run, capsys):
    argv = ["evaluate", "--data", "digits", "--samples", "50", "--network"]
    assert main([*argv, str(run)]) == 0
    assert f"kept in {run}/metric-classes.jsonl" in capsys.readouterr().out
    assert main([*argv, str(run / "checkpoint-000002")]) == 0  # of the run's checkpoint, and with its step
    first, *others = rows(run)
    assert first["agreement"] is None
    assert len(others) == 1
    assert first["metric"] == "classes" and first["step"] == 2 and first["samples"] == 50 and first["data"] == "digits"
    assert 0 <= first["distance"] <= 1 and len(first["fake_shares"]) == 10
    for other in others:  # the averaged generator of the last step each time
        assert {**other, "time": first["time"]} == first


def test_other_data_than_it_was_trained_on(run, capsys):
    assert main(["evaluate", "--network", str(run), "--data", "gaussians:ring8", "--samples", "16"]) == 2
    assert "--data gaussians:ring8 is points, and this generator makes images" in capsys.readouterr().err


def test_no_samples_at_all(run, capsys):
    assert main(["evaluate", "--network", str(run), "--data", "digits", "--samples", "0"]) == 2
    assert "--samples must be at least 1, got 0" in capsys.readouterr().err


def test_scores_of_a_file_are_printed_alone(run, tmp_path, capsys):
    (tmp_path / "alone").mkdir()
    file = shutil.copy(run / "generator.safetensors", tmp_path / "alone" / "g.safetensors")
    assert main(["evaluate", "--network", str(file), "--data", "digits", "--samples", "50"]) == 0
    assert "kept in" not in (out := capsys.readouterr().out) and "distance" in out
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["g.safetensors"]


def test_classes_that_were_asked_for_are_compared(capsys):
    digits = Spec("labels", (), tuple(map(str, range(10))))
    small.saved(CGAN(width=2, latent_dim=4), "run/generator.safetensors", y=digits)
    Path("run/options.json").write_text("{}")
    assert main(["evaluate", "--network", "run", "--data", "digits", "--samples", "40"]) == 0
    assert "samples that it assigns to their own class" in capsys.readouterr().out
    (row,) = [json.loads(line) for line in Path("run/metric-classes.jsonl").read_text().splitlines()]
    assert 0 <= row["agreement"] <= 1 and row["step"] == 3


def test_codes_of_a_recipe_are_no_classes_of_the_data(capsys):
    assert main(["evaluate", "--network", small.infogan(), "--data", "digits", "--samples", "20"]) == 0
    assert "own class" not in (out := capsys.readouterr().out) and "distance" in out


def test_what_cannot_be_evaluated(fails):
    message = fails("evaluate", "--network", small.cyclegan(), "--data", "digits", "--samples", "8")
    assert "recipe cyclegan is given images" in message and "drawn from latents" in message and "--input" in message
    message = fails("evaluate", "--network", small.cgan(), "--data", "digits", "--samples", "8")  # of four classes
    assert "4 classes" in message and "digits has 10" in message and "--data" in message
    message = fails("evaluate", "--network", small.saved(small.Captions()), "--data", "digits", "--samples", "8")
    assert "recipe captions is given tokens (t)" in message
