"""Damaged, foreign and hostile checkpoints."""

import contextlib
import json
import pickle
import shutil

import pytest
import torch
from training.tiny import TINY, assert_same_bits, weights

from ganfast import Trainer
from ganfast.errors import InputError
from ganfast.recipes import DCGAN
from ganfast.training import checkpoint, run_directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny run, to be copied."""
    outdir = tmp_path_factory.mktemp("finished")
    return Trainer(DCGAN(width=4, latent_dim=8), "digits", steps=10, outdir=str(outdir), **TINY).train(progress=False)


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "runs" / finished.name)


def damage(file, how):
    content = file.read_bytes()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "flip":
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        file.unlink()


@pytest.mark.parametrize("how", ["cut", "flip", "remove"])
@pytest.mark.parametrize(
    "name", ["G.safetensors", "D.safetensors", "generator.safetensors", "state.pt", "checkpoint.json"]
)
def test_damage_is_named_and_nothing_saved_is_lost(run, tiny, name, how):
    newest = run / "checkpoint-000010"
    if (name, how) == ("checkpoint.json", "flip"):
        (newest / name).write_bytes(b"{" + (newest / name).read_bytes())
    else:
        damage(newest / name, how)
    if (name, how) != ("checkpoint.json", "remove"):
        with pytest.raises(InputError, match=r"damaged|missing") as caught:
            tiny(steps=20, resume=str(newest))
        assert str(newest) in str(caught.value)
    before = sorted(path.name for path in run.iterdir())

    resumed = tiny(steps=11, resume=str(run))  # the one before is taken
    assert resumed.step == 8
    assert sorted(path.name for path in run.iterdir()) == before
    assert resumed.train(progress=False) == run
    assert "Taking the one before" in (run / "log.txt").read_text()
    assert (run / "damaged-checkpoint-000010").is_dir()


def test_a_run_whose_checkpoints_are_all_damaged(run, tiny):
    for directory in checkpoint.all_in(run):
        damage(directory / "state.pt", "cut")
    with pytest.raises(InputError, match="damaged"):
        tiny(steps=20, resume=str(run))


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("writer", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value, 2))])
def test_a_hostile_checkpoint_executes_nothing(run, tiny, tmp_path, writer):
    newest = run / "checkpoint-000010"
    writer({"step": Hostile(str(tmp_path / "owned"))}, newest / "state.pt")
    manifest = json.loads((newest / "checkpoint.json").read_text())
    manifest["files"]["state.pt"] = checkpoint.sha256(newest / "state.pt")  # the stranger signs it, too
    (newest / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"not loaded|damaged"):
        tiny(steps=20, resume=str(newest))
    assert not (tmp_path / "owned").exists()
    with contextlib.suppress(RuntimeError):
        torch.load(newest / "state.pt", weights_only=False)  # it would have
    assert (tmp_path / "owned").exists()


def test_a_manifest_cannot_point_outside(run, tiny):
    newest = run / "checkpoint-000010"
    manifest = json.loads((newest / "checkpoint.json").read_text())
    manifest["files"]["../../secret.safetensors"] = "0"
    (newest / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="damaged"):
        tiny(steps=20, resume=str(newest))


@pytest.mark.parametrize(
    "change", [{"batch": 16}, {"seed": 1}, {"flip": True}, {"ema_decay": 0.5}, {"precision": "bf16"}, {"d_steps": 2}]
)
def test_other_hyperparameters_are_refused(run, tiny, change):
    with pytest.raises(InputError, match="--" + next(iter(change)).replace("_", "-")):
        tiny(steps=20, resume=str(run), **change)


def test_other_data_is_refused(run, tiny, tmp_path):
    import numpy as np

    np.save(tmp_path / "digits.npy", np.random.default_rng(0).integers(0, 255, (1797, 16, 16, 1), np.uint8))
    with pytest.raises(InputError, match="--data"):
        tiny(steps=20, resume=str(run), data=str(tmp_path / "digits.npy"))


def test_a_finished_run_says_so(run, tiny):
    with pytest.raises(InputError, match="--steps"):
        tiny(steps=10, resume=str(run)).train(progress=False)


def test_a_place_without_checkpoints(tiny, tmp_path):
    for place, message in (
        (tmp_path, "is not a run directory, it has neither options.json nor a checkpoint"),
        (tmp_path / "nowhere", "is not there"),
    ):
        with pytest.raises(InputError, match=message):
            tiny(resume=str(place))


def test_only_the_newest_are_kept_and_leftovers_go(run, tiny):
    (run / ".partial-checkpoint-000099").mkdir()
    tiny(steps=30, resume=str(run), keep=2).train(progress=False)
    assert [path.name for path in checkpoint.all_in(run)] == ["checkpoint-000028", "checkpoint-000030"]
    assert not list(run.glob(".partial-*"))


def test_writing_that_fails_leaves_the_last_one_whole(tiny, monkeypatch):
    """A full disk in the middle of a checkpoint."""
    trainer = tiny(steps=8)

    def full(*_):
        if trainer.step == 8:
            raise OSError(28, "No space left on device")
        return save(*_)

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="No space left"):
        trainer.train(progress=False)
    monkeypatch.undo()
    assert [path.name for path in checkpoint.all_in(trainer.run)] == ["checkpoint-000004"]
    resumed = tiny(steps=8, resume=str(trainer.run))
    resumed.train(progress=False)
    assert_same_bits(weights(resumed)[:-1], weights(trainer)[:-1])


def test_checkpoints_sort_by_number(tmp_path):
    for step in (999_999, 1_000_000, 5):
        (tmp_path / checkpoint.name(step)).mkdir()
    assert [path.name for path in checkpoint.all_in(tmp_path)] == [
        "checkpoint-000005", "checkpoint-999999", "checkpoint-1000000",
    ]  # fmt: skip


def test_a_half_written_last_row_of_stats_is_dropped(run):
    with open(run / "stats.jsonl", "a") as file:
        file.write('{"step": 11, "loss')
    assert run_directory.read_stats(run)[-1]["step"] == 10
