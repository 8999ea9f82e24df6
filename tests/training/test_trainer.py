"""What a run leaves behind, and that going on is the same as never having stopped."""

import json
import signal

import numpy
import pytest
import torch
from PIL import Image
from training.tiny import assert_same_bits, weights, without_times

import ganfast
from ganfast.data import open_dataset
from ganfast.errors import InputError
from ganfast.recipes import DCGAN, GAN
from ganfast.training import checkpoint, run_directory


def test_a_run_directory_explains_itself(tiny):
    trainer = tiny(steps=10, sample_every=5, keep=2)
    run = trainer.train(progress=False)
    assert run.name == "00000-dcgan-digits"
    names = {path.name for path in run.iterdir()}
    assert names == {
        ".lock", "options.json", "log.txt", "stats.jsonl", "losses.png", "tensorboard", "generator.safetensors",
        "reals.png", "fakes.png", "fakes-000000.png", "fakes-000005.png", "fakes-000010.png",
        "checkpoint-000008", "checkpoint-000010",
    }  # fmt: skip
    options = json.loads((run / "options.json").read_text())
    assert options["recipe"]["name"] == "dcgan" and options["recipe"]["width"] == 4
    assert options["options"]["batch"] == 8 and options["data"]["count"] == 1797
    assert options["environment"]["torch"] == torch.__version__
    assert "Done: 10 steps, 80 samples" in (run / "log.txt").read_text()
    rows = run_directory.read_stats(run)
    assert [row["step"] for row in rows] == list(range(1, 11)) and rows[-1]["images"] == 80
    assert all(0 <= row["accuracy_real"] <= 1 and row["images_per_second"] > 0 for row in rows)
    with Image.open(run / "fakes.png") as grid:
        assert grid.size == (2 * (8 * 18 - 2), 2 * (8 * 18 - 2))
    assert any(file.name.startswith("events") for file in (run / "tensorboard").iterdir())
    assert tiny(steps=2).train(progress=False).name == "00001-dcgan-digits"


def test_the_saved_generator_makes_the_samples_of_the_trainer(tiny):
    trainer = tiny(steps=3)
    run = trainer.train(progress=False)
    generator = ganfast.load(run)
    assert generator.arguments == ("z",) and generator.about["data"] == "digits"
    expected = generator(ganfast.models.latents(range(5), generator.latent_dim)).detach()
    torch.testing.assert_close(trainer.generate(range(5)), expected)
    assert torch.equal(ganfast.load(run / "checkpoint-000003")(torch.ones(1, 8)), generator(torch.ones(1, 8)))


def test_the_same_seed_gives_the_same_run_and_another_another(tiny):
    runs = [tiny(steps=4, seed=seed) for seed in (3, 3, 4)]
    losses = [run_directory.read_stats(run.train(progress=False)) for run in runs]
    figures = [[(row["loss_d"], row["loss_g"]) for row in rows] for rows in losses]
    assert figures[0] == figures[1] != figures[2]
    for a, b in zip(runs[0].state.networks.values(), runs[1].state.networks.values()):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


@pytest.mark.parametrize("d_steps", [1, 2])
def test_resuming_is_the_same_as_never_stopping(tiny, tmp_path, d_steps):
    whole = tiny(steps=12, d_steps=d_steps, outdir=str(tmp_path / "whole"), log_every=3, flip=True)
    run_whole = whole.train(progress=False)
    expected = weights(whole)

    options = {"d_steps": d_steps, "outdir": str(tmp_path / "parts"), "log_every": 3, "flip": True}
    run = tiny(steps=5, **options).train(progress=False)  # in the middle of a window of stats.jsonl
    torch.randn(17)  # whatever happens in between
    resumed = tiny(steps=12, resume=str(run), **options)
    assert resumed.step == 5
    assert resumed.train(progress=False) == run
    assert_same_bits(weights(resumed), expected)
    rows = [without_times(run_directory.read_stats(each)) for each in (run_whole, run)]
    assert rows[0] == rows[1] and {"grad_norm_d", "grad_norm_g"} < set(rows[0][0])


def test_a_resumed_run_may_be_deterministic_or_not(tiny):
    """On a CPU it always is: nothing changes but what options.json says."""
    whole = tiny(steps=6)
    whole.train(progress=False)
    run = tiny(steps=3, deterministic=True).train(progress=False)
    assert json.loads((run / "options.json").read_text())["options"]["deterministic"]
    resumed = tiny(steps=6, resume=str(run))
    assert resumed.train(progress=False) == run
    assert_same_bits(weights(resumed), weights(whole))
    assert not json.loads((run / "options.json").read_text())["options"]["deterministic"]


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tiny, monkeypatch):
    """In the same directory, and says so."""
    trainer = tiny(steps=9, checkpoint_every=100)
    advance = trainer.advance

    def killed():
        advance()
        if trainer.step == 6:
            monkeypatch.setattr(trainer, "finish", lambda monitor: None)
            monkeypatch.setattr(trainer.saver, "save", lambda state: None)
            raise SystemExit(9)

    trainer.advance = killed
    with pytest.raises(SystemExit):
        trainer.train(progress=False)
    run = trainer.run
    assert not checkpoint.all_in(run) and len(run_directory.read_stats(run)) == 5
    again, whole = tiny(steps=9, resume=str(run)), tiny(steps=9)
    assert again.step == 0 and again.train(progress=False) == run
    whole.train(progress=False)
    assert_same_bits(weights(again), weights(whole))
    assert [row["step"] for row in run_directory.read_stats(run)] == list(range(1, 10))
    log = (run / "log.txt").read_text()
    assert f"{run} was stopped before its first checkpoint: it begins again, in the same directory." in log
    with pytest.raises(
        InputError, match=rf"{run} was trained with --batch 8, not 4, which would change the method: leave --batch out"
    ):
        (run / "checkpoint-000009").rename(run / "away-9"), [each.rename(run / f"away-{each.name}") for each in
            checkpoint.all_in(run)]  # fmt: skip
        tiny(steps=9, resume=str(run), batch=4)


def test_rates_and_intervals_may_change_at_resume(tiny):
    run = tiny(steps=4).train(progress=False)
    resumed = tiny(steps=8, resume=str(run), log_every=2, sample_every=3, checkpoint_every=3, lr=1e-3)
    assert resumed.state.optimizers["G"].param_groups[0]["lr"].item() == pytest.approx(1e-3)
    resumed.train(progress=False)
    assert [row["step"] for row in run_directory.read_stats(run)] == [1, 2, 3, 4, 6, 8]
    assert json.loads((run / "options.json").read_text())["recipe"]["lr"] == 1e-3
    with pytest.raises(
        InputError, match=r"--seed 0, not 5, which would change the method.*intervals of rows, pictures"
    ):
        tiny(steps=9, resume=str(run), seed=5)


def test_the_latest_run_is_resumed_from_python_too(tiny, tmp_path):
    run = tiny(steps=3).train(progress=False)
    assert tiny(steps=5, resume="latest").train(progress=False) == run
    with pytest.raises(InputError, match=f"{run} is finished, it has its 5 steps"):
        tiny(steps=5, resume="latest").train(progress=False)
    with pytest.raises(InputError, match="elsewhere holds no run of recipe dcgan"):
        tiny(steps=5, resume="latest", outdir=str(tmp_path / "elsewhere"))


def test_going_on_from_an_older_checkpoint_branches_off(tiny):
    run = tiny(steps=12).train(progress=False)
    before = sorted(path.name for path in run.iterdir())
    branch = tiny(steps=12, resume=str(run / "checkpoint-000004")).train(progress=False)
    assert branch.name == "00001-dcgan-digits"
    assert f"{run} has newer checkpoints and stays as it is; this starts a new run." in (branch / "log.txt").read_text()
    assert sorted(path.name for path in run.iterdir()) == before
    assert [row["step"] for row in run_directory.read_stats(branch)] == list(range(1, 13))


def test_interrupting_saves_and_says_how_to_go_on(tiny, capfd):
    trainer = tiny(steps=50, checkpoint_every=1000)
    advance = trainer.advance

    def interrupted():
        advance()
        if trainer.step == 3:
            signal.raise_signal(signal.SIGINT)

    trainer.advance = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert f"ganfast train dcgan --resume {trainer.run}" in capfd.readouterr().err
    assert tiny(steps=50, checkpoint_every=1000, resume=str(trainer.run)).step == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as it was


def test_training_again_after_an_interruption_is_the_same_as_never_stopping(tiny):
    whole = tiny(steps=9)
    whole.train(progress=False)
    trainer = tiny(steps=9)
    advance = trainer.advance
    trainer.advance = lambda: (advance(), trainer.step == 4 and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(progress=False)
    torch.randn(3)
    trainer.advance = advance
    assert trainer.train(progress=False) == trainer.run
    assert_same_bits(weights(trainer), weights(whole))


def test_sigterm_saves_too(tiny):
    trainer = tiny(steps=50, checkpoint_every=1000)
    advance = trainer.advance
    trainer.advance = lambda: (advance(), signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        trainer.train(progress=False)
    assert caught.value.code == 128 + signal.SIGTERM
    assert [path.name for path in checkpoint.all_in(trainer.run)] == ["checkpoint-000001"]


def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_checkpoints(tiny):
    trainer = tiny(steps=50)
    advance = trainer.advance

    def broken():
        if trainer.step == 6:
            with torch.no_grad():
                next(trainer.state.networks["D"].parameters()).fill_(torch.nan)
        advance()

    trainer.advance = broken
    with pytest.raises(InputError, match=r"no longer finite at step 7: .*checkpoint-000004 .*--on-nan rollback"):
        trainer.train(progress=False)
    assert [path.name for path in checkpoint.all_in(trainer.run)] == ["checkpoint-000004"]


def test_points_train_too(tmp_path):
    data = open_dataset("gaussians:ring8")
    trainer = ganfast.Trainer(GAN(width=16), data, steps=3, batch=32, outdir=str(tmp_path))
    run = trainer.train(progress=False)
    assert run.name == "00000-gan-gaussians-ring8" and trainer.generate(range(7)).shape == (7, 2)
    with Image.open(run / "fakes.png") as picture:
        assert picture.size == (400, 400)


def test_bf16_trains_near_fp32_and_keeps_fp32_weights(tiny):
    rows = {}
    for precision in ("fp32", "bf16"):
        trainer = tiny(steps=5, precision=precision)
        rows[precision] = run_directory.read_stats(trainer.train(progress=False))
        assert all(p.dtype == torch.float32 for net in trainer.state.networks.values() for p in net.parameters())
    losses = {name: [row["loss_d"] for row in each] for name, each in rows.items()}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05) and losses["bf16"] != losses["fp32"]


@pytest.mark.parametrize(
    "recipe, options, message",
    [
        (DCGAN(), {"data": "gaussians:ring8"}, "recipe dcgan needs images, and gaussians-ring8 has none"),
        (DCGAN(), {"data": "digits", "batch": 4000}, "--batch"),
        (DCGAN(), {"data": "digits", "size": 48}, "--size"),
        (DCGAN(), {"data": "digits", "steps": 3, "kimg": 4}, "--kimg, --steps"),
        (DCGAN(), {"data": "digits", "steps": 0}, "--steps"),
        (DCGAN(), {"data": "digits", "device": "tpu"}, "--device"),
        (DCGAN(), {"data": "digits", "device": "cuda:99"}, "cuda:99"),
        (DCGAN(), {"data": "digits", "precision": "tf32", "device": "cpu"}, "--precision"),
        (DCGAN(), {"data": "digits", "gpu_data_gib": -1.0}, "--gpu-data-gib"),
        (DCGAN(), {"data": "digits", "precision": "fp64"}, r"fp32 or tf32 or bf16 or fp16, got 'fp64' \(--precision\)"),
        (DCGAN(), {"data": "digits", "lr_decay": "step"}, "--lr-decay"),
        (DCGAN(), {"data": "digits", "on_nan": "ignore"}, "--on-nan"),
        (DCGAN(), {"data": "nowhere/at/all"}, "nowhere/at/all"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(recipe, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        ganfast.Trainer(recipe, options.pop("data"), outdir=str(tmp_path / "runs"), **options)
    assert not (tmp_path / "runs").exists()


def test_what_was_noticed_in_the_data_is_said_at_the_start(tmp_path):
    data = open_dataset("digits", size=16)
    data.notes = ("Two pictures are alike.",)
    run = ganfast.Trainer(DCGAN(width=2), data, steps=1, batch=4, outdir=tmp_path).train(progress=False)
    assert " Two pictures are alike.\n" in (run / "log.txt").read_text()


def test_a_data_set_that_is_given_keeps_its_size():
    data = open_dataset("digits", size=16)
    assert ganfast.Trainer(DCGAN(width=2), data, size=16, channels=1, batch=4).sources == [data]
    for options, message in (
        ({"size": 32}, "size is 16 in digits, got 32"),
        ({"channels": 3}, "channels is 1 in"),
        ({"size": 16, "load_size": 20}, "load_size is 16 in digits, got 20"),
    ):
        with pytest.raises(InputError, match=message):
            ganfast.Trainer(DCGAN(width=2), data, batch=4, **options)


def test_crops_at_random_places_go_on_where_they_were(tmp_path):
    options = {"size": 16, "load_size": 20, "flip": True, "batch": 4, "outdir": tmp_path}

    def trained(steps, **more):
        trainer = ganfast.Trainer(DCGAN(width=2, latent_dim=3), "digits", steps=steps, **options, **more)
        return trainer, trainer.train(progress=False)

    whole, _ = trained(4)
    resumed, _ = trained(4, resume=trained(2)[1])
    assert whole.specs["x"].shape == (1, 16, 16) and whole.state.loaders[0].on_device["images"].shape[1:] == (20, 20, 1)
    for a, b in zip(whole.state.networks["G"].parameters(), resumed.state.networks["G"].parameters()):
        assert torch.equal(a, b)
    centre = open_dataset("digits", size=16, load_size=20)  # which is shown
    shown = ((whole.show.real(8) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    assert all((image == centre.samples).flatten(1).all(1).any() for image in shown)


def test_paths_are_words(tmp_path):
    folder = tmp_path / "points.npy"
    numpy.save(folder, torch.randn(20, 2).numpy())
    options = {"batch": 4, "outdir": tmp_path / "runs"}
    run = ganfast.Trainer(GAN(width=8), folder, steps=1, **options).train(progress=False)
    stored = json.loads((run / "options.json").read_text())["options"]
    assert (stored["data"], stored["outdir"]) == (str(folder), str(tmp_path / "runs"))
    assert ganfast.Trainer(GAN(width=8), folder, steps=2, resume=run, **options).train(progress=False) == run


def test_a_recipe_must_be_made():
    with pytest.raises(InputError, match=r"as in Trainer\(DCGAN\(\), \.\.\.\), got <class '.*GAN'>"):
        ganfast.Trainer(GAN, "gaussians:ring8")


def test_tf32_is_refused_where_auto_finds_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--precision"):
        ganfast.Trainer(DCGAN(), "digits", precision="tf32")


@pytest.mark.parametrize(
    "fields",
    [{"d_steps": 0}, {"lr": 0.0}, {"beta1": 1.0}, {"real_target": 2.0}, {"latent_dim": 0}, {"width": 0}],
)
def test_recipes_refuse_impossible_fields(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        DCGAN(**fields)
