"""``ganfast design`` on networks that have learnt nothing."""

import json
from pathlib import Path

import pytest
import torch
from commands import small
from PIL import Image

from ganfast.cli import main
from ganfast.data import open_dataset
from ganfast.data.columns import Spec
from ganfast.recipes import DVBPR, load
from ganfast.training.designing import design

DATA = "users:3:few:4:digits"


@pytest.fixture
def run() -> str:
    digits = Spec("labels", (), tuple(map(str, range(10))))
    users = Spec("attributes", (3,), tuple(f"user {k}" for k in range(3)))
    recipe = DVBPR(width=2, latent_dim=4, factors=3)
    small.saved(recipe, "run/generator.safetensors", y=digits, u=users)
    Path("run/options.json").write_text("{}")
    return "run"


def test_the_best_of_the_data_beside_designs(run, capsys):
    argv = ["design", "--network", run, "--data", DATA, "--users", "0,2", "--starts", "6", "--steps", "3"]
    assert main([*argv, "--classes", "3,7", "--top", "2"]) == 0
    assert "run/design.png" in (out := capsys.readouterr().out) and "AUC of held-out choices" in out
    row = json.loads(Path("run/metric-design.jsonl").read_text())
    assert row["users"] == 2 and row["top"] == 2 and 0 <= row["auc"] <= 1
    preference, taste = row["preference"], row["taste"]
    assert preference["data_top"] >= preference["data_random"] and taste["data_random"] < 0
    assert row["realism_top"] <= 0
    assert Image.open("run/design.png").size == (2 * (5 * 18 - 2), 2 * (2 * 18 - 2))
    trained, data = load(run), open_dataset(DATA, size=16)
    rows = torch.isin(data.labels, torch.tensor([3, 7]))
    x = data.samples[rows].movedim(3, 1).float() / 127.5 - 1
    with torch.no_grad():
        scores = trained.prefer(x)[:, [0, 2]]
    assert abs(scores.topk(2, 0).values.mean().item() - preference["data_top"]) < 1e-4


def test_ascent_raises_the_objective_and_trains_nothing(run):
    trained = load(run)
    before = {name: values.clone() for name, values in trained.state_dict().items()}
    given = {"y": torch.tensor([0, 1, 2, 3])}
    drawn, designed = design(trained, 1, given, quality=0.1, steps=30)
    gain = (designed.preference + 0.1 * designed.realism) - (drawn.preference + 0.1 * drawn.realism)
    assert (gain > 0).all() and torch.equal(designed.given["y"], given["y"])
    assert all(torch.equal(values, before[name]) for name, values in trained.state_dict().items())
    again = design(trained, 1, given, quality=0.1, steps=30)[1]
    assert torch.equal(again.samples, designed.samples) and not torch.equal(drawn.samples, designed.samples)


def test_what_cannot_be_designed(run, fails):
    assert "recipe dcgan knows no users" in fails("design", "--network", small.dcgan(), "--data", DATA)
    assert "the run knows 3 users, 0 to 2" in fails("design", "--network", run, "--data", DATA, "--users", "3")
    assert "has not the attributes of the run" in fails("design", "--network", run, "--data", "users:2:digits")
    assert "has not the attributes of the run" in fails("design", "--network", run, "--data", "digits")
    assert "--starts must be at least 3, got 2" in fails("design", "--network", run, "--data", DATA, "--starts", 2)
    assert "cat" in fails("design", "--network", run, "--data", DATA, "--classes", "cat")
    file = Path("run/generator.safetensors").rename("alone.safetensors")
    assert "without its run" in fails("design", "--network", file, "--data", DATA)
