"""Scores of a run while it trains."""

import json
from pathlib import Path

import pytest
import torch
from training.tiny import TINY, assert_same_bits, weights

from ganfast import Trainer
from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics import lenet
from ganfast.recipes import GAN, CycleGAN
from ganfast.training import run_directory, scoring
from ganfast.training.figures import headline


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few samples, and a classifier of a few steps."""
    learn = lenet.learn
    monkeypatch.setattr(lenet, "learn", lambda net, data, rows, steps, progress: learn(net, data, rows, 5, progress))
    monkeypatch.setattr(scoring, "SAMPLES", 32)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path / "cache"))


def rows(run: Path, metric: str) -> list[dict]:
    found = [json.loads(line) for line in (run / f"metric-{metric}.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "time"} for row in found]


def test_scores_are_kept_with_their_step_and_change_nothing_else(tiny, tmp_path):
    plain, scored = tiny(steps=6), tiny(steps=6, score_every=2)
    assert_same_bits(weights(plain), weights(scored))
    plain.train(progress=False)
    run = scored.train(progress=False)
    assert_same_bits(weights(plain), weights(scored))
    found = rows(run, "lenet")
    assert [row["step"] for row in found] == [2, 4, 6] and {row["samples"] for row in found} == {32}
    assert [row["floors"] for row in found] == [found[0]["floors"]] * 3
    assert len({row["values"]["frechet-lenet"] for row in found}) == 3
    assert not list(plain.run.glob("metric-*"))
    assert "Step 4: frechet-lenet" in (run / "log.txt").read_text()
    (name, points), *others = run_directory.read_scores(run).items()
    assert name == "frechet-lenet" and [step for step, *_ in points] == [2, 4, 6] and not others


def test_a_resumed_run_has_the_same_rows(tiny):
    whole = rows(tiny(steps=6, score_every=1).train(progress=False), "lenet")
    again = tiny(steps=6, score_every=1)
    advance = again.advance

    def stop_at_five():
        if again.step == 5:
            raise RuntimeError("killed")
        advance()

    again.advance = stop_at_five
    with pytest.raises(RuntimeError, match="killed"):
        again.train(progress=False)
    assert [row["step"] for row in rows(again.run, "lenet")] == [1, 2, 3, 4, 5]
    resumed = tiny(steps=6, score_every=1, resume=str(again.run))  # from the checkpoint of step 4
    assert resumed.step == 4
    assert rows(resumed.train(progress=False), "lenet") == whole


def test_modes_of_points(tmp_path):
    options = {**TINY, "steps": 3, "size": None, "outdir": str(tmp_path)}
    run = Trainer(GAN(width=8), "gaussians:ring8", score_every=2, **options).train(progress=False)
    found = rows(run, "modes")
    assert [row["step"] for row in found] == [2, 3] and found[0]["total"] == 8  # every second step, and the last one
    assert (run / "losses.png").exists()


def test_what_has_no_scores_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match="score_every must be 0 or more, got -1"):
        tiny(score_every=-1)
    with pytest.raises(InputError, match="give --score-every as well"):
        tiny(features="w.pth")
    with pytest.raises(InputError, match=r"--features .*w.pth is not there"):
        tiny(score_every=1, features=tmp_path / "w.pth")
    images = torch.zeros(8, 16, 16, 1, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"plain has no labelled images: .*\(--features\)"):
        tiny(score_every=1, data=Dataset("plain", images=images))
    pair = Dataset("a", images=images), Dataset("b", images=images)
    with pytest.raises(InputError, match="recipe cyclegan is given images"):
        Trainer(CycleGAN(width=2, blocks=1, layers=1), pair, steps=1, batch=1, score_every=1)


def test_headlines():
    assert headline({"values": {"a": 2.0, "b": 1.0}, "floors": {"a": 0.5}}) == ("a", 2.0, 0.5)
    assert headline({"modes": 7, "total": 8}) == ("modes", 7, 8)
    assert headline({"modes": 700, "total": 1000, "floor_modes": 999}) == ("modes", 700, 999)
    assert headline({"accuracy": 1.0}) is None
