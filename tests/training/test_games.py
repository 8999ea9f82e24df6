"""Each of the four recipes that the engine was made for, as a run: resumed, killed, shown, refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from training.games import FOUR, images, points
from training.tiny import assert_same_bits, weights, without_times

import ganfast
from ganfast.cli import main
from ganfast.data import Dataset, pack
from ganfast.errors import InputError
from ganfast.recipes import RECIPES
from ganfast.report import write
from ganfast.training import checkpoint, run_directory

OPTIONS = {"batch": 8, "log_every": 3, "sample_every": 50, "checkpoint_every": 5, "flip": True}


def data_of(name):
    return (images(seed=0), images(30, seed=1)) if name == "cyclegan" else images()


def trainer(name, tmp_path, steps, **options):
    return ganfast.Trainer(FOUR[name], data_of(name), steps=steps, outdir=str(tmp_path), **{**OPTIONS, **options})


@pytest.mark.parametrize("name", FOUR)
def test_resuming_at_any_step_is_the_same_as_never_stopping(name, tmp_path):
    whole = trainer(name, tmp_path / "whole", 12)
    run_whole = whole.train(progress=False)
    step = random.randrange(1, 12)
    stopped = trainer(name, tmp_path / "parts", 12)
    advance = stopped.advance
    stopped.advance = lambda: (advance(), stopped.step == step and signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stopped.train(progress=False)
    run = stopped.run
    torch.randn(17)  # whatever happens in between
    resumed = trainer(name, tmp_path / "parts", 12, resume=str(run))
    assert resumed.step == step and resumed.train(progress=False) == run
    assert_same_bits(weights(resumed), weights(whole))
    rows = [without_times(run_directory.read_stats(each)) for each in (run_whole, run)]
    assert rows[0] == rows[1] and {f"loss_{p.name}" for p in FOUR[name].players()} < set(rows[0][0])
    assert set(FOUR[name].telling) < set(rows[0][0])


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUR)
def test_killed_runs_go_on_bit_for_bit(name, tmp_path):
    sources = data_of(name)
    for source in sources if isinstance(sources, tuple) else (sources,):
        pack_of(source, tmp_path)
    recipe = [f"--{key.replace('_', '-')}={value}" for key, value in changed(FOUR[name]).items()]
    data = ["--data", str(tmp_path / "noise-0.safetensors")]
    data += ["--data-b", str(tmp_path / "noise-1.safetensors")] if name == "cyclegan" else []
    command = [
        sys.executable, "-m", "ganfast", "train", name, *data, *recipe, "--batch", "8", "--steps", "40",
        "--log-every", "3", "--checkpoint-every", "4", "--sample-every", "50",
    ]  # fmt: skip

    def start(*options):
        return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    def finish(process):
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        paths = data[1::2]
        whole = ganfast.Trainer(
            FOUR[name], paths, steps=40, outdir=str(tmp_path / "whole"), **{**OPTIONS, "flip": False}
        )
        whole = whole.train(progress=False)
    finally:
        torch.set_num_threads(threads)
    process = start("--outdir", str(tmp_path / "killed"))
    stop = random.randrange(4, 28)
    while True:
        assert process.poll() is None, process.communicate()[1]
        saved = [each for run in (tmp_path / "killed").glob("0*") for each in checkpoint.all_in(run)]
        if saved and int(saved[-1].name.rpartition("-")[2]) >= stop:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (killed,) = (tmp_path / "killed").iterdir()
    finish(start("--resume", str(killed)))
    states = [checkpoint.read(run / checkpoint.name(40), torch.device("cpu"))[1] for run in (whole, killed)]
    leaves = [torch.utils._pytree.tree_leaves({k: v for k, v in s.items() if k != "random"}) for s in states]
    assert len(leaves[0]) == len(leaves[1]) > 20
    for one, other in zip(*leaves):
        assert torch.equal(one, other) if torch.is_tensor(one) else one == other


@pytest.mark.parametrize("name", FOUR)
def test_a_dry_run_says_what_would_be_done(name, tmp_path, capsys):
    sources = data_of(name)
    for source in sources if isinstance(sources, tuple) else (sources,):
        pack_of(source, tmp_path)
    data = ["--data", str(tmp_path / "noise-0.safetensors")]
    data += ["--data-b", str(tmp_path / "noise-1.safetensors")] if name == "cyclegan" else []
    layers = ["--layers", "2"] if name == "cyclegan" else []
    assert main(["train", name, *data, *layers, "--batch", "8", "--outdir", str(tmp_path / "runs"), "-n"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name} on noise: 40 images of 1×16×16") and "It would write to" in said
    assert all(f" {network} " in said for network in FOUR[name].averaged) and not (tmp_path / "runs").exists()


def pack_of(source: Dataset, folder) -> None:
    number = len(list(folder.glob("*.safetensors")))
    np.savez(folder / "noise.npz", images=source.samples.numpy(), labels=source.labels.numpy())
    pack(str(folder / "noise.npz"), str(folder / f"noise-{number}.safetensors"), progress=False)


def changed(recipe) -> dict:
    default = type(recipe)()
    return {name: value for name, value in vars(recipe).items() if value != getattr(default, name)}


@pytest.mark.parametrize(
    "name, grid", [("cgan", (8, 5)), ("infogan", (8, 5)), ("began", (8, 10)), ("cyclegan", (8, 8))]
)
def test_a_run_shows_what_its_recipe_is_about(name, grid, tmp_path):
    """Rows of one class each and rows of one code each; reconstructions; inputs beside outputs."""
    run = trainer(name, tmp_path, 4).train(progress=False)
    columns, rows = grid
    with Image.open(run / "fakes.png") as picture:
        assert picture.size == (2 * (columns * 18 - 2), 2 * (rows * 18 - 2))
    assert write(run, run / "report.html") == []
    assert (run / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", FOUR)
def test_what_is_saved_samples_as_the_trainer_does(name, tmp_path):
    made = trainer(name, tmp_path, 3)
    run = made.train(progress=False)
    for place in (run, run / checkpoint.name(3)):
        loaded = ganfast.load(place)
        given = loaded.example(4)
        expected = made.trained(**given)
        torch.testing.assert_close(loaded(**given), expected)  # in another memory format perhaps
        assert torch.equal(loaded(**given), loaded(*given.values()))
        assert list(given) == list(loaded.arguments) and expected.shape == (4, 1, 16, 16)
        assert expected.min() >= -1 and expected.max() <= 1
    bad = {each: tensor[:, None] for each, tensor in given.items()}
    with pytest.raises(InputError, match=rf"^{loaded.arguments[0]}: got .*, needs .*\[B"):
        loaded(**bad)
    with pytest.raises(TypeError, match=loaded.arguments[0]):
        loaded()


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("cgan", lambda: Dataset("flat", images=images().samples),
         "recipe cgan needs labels, and flat has none: put each class into a folder of its own"),
        ("cgan", points, "recipe cgan needs images, and points has none: give a folder"),
        ("infogan", points, "recipe infogan needs images, and points has none"),
        ("began", points, "recipe began needs images, and points has none"),
        ("cyclegan", images, "recipe cyclegan needs two data sets, got one: give the second one as --data-b"),
        ("cyclegan", lambda: (images(), images(size=32)), "need one shape.*--size and --channels"),
        ("dcgan", lambda: (images(), images()), "recipe dcgan uses one data set, got two: leave out --data-b"),
    ],
)  # fmt: skip
def test_data_that_does_not_fit_is_refused_with_one_sentence(name, data, message, tmp_path):
    with pytest.raises(InputError, match=message):
        ganfast.Trainer({**FOUR, "dcgan": RECIPES["dcgan"](width=2)}[name], data(), batch=4, outdir=str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_a_pool_that_is_smaller_than_the_batch_is_refused(tmp_path):
    recipe = RECIPES["cyclegan"](width=2, blocks=1, layers=1, pool=3)
    with pytest.raises(InputError, match=r"pool must be at least the batch, 4, got 3 \(--pool\)"):
        ganfast.Trainer(recipe, data_of("cyclegan"), batch=4, steps=1, outdir=str(tmp_path)).train(progress=False)


def test_a_pool_keeps_what_it_gives_away():
    """While there is room all go in; later each is exchanged with probability 1/2, and never twice in a batch."""
    from types import SimpleNamespace

    from ganfast.recipes.pool import draw_from_pool

    t = SimpleNamespace(gather=lambda x: x, mine=lambda x: x, uniform=lambda n: torch.rand(size, n))
    size, pool, count = 4, torch.zeros(10, 1), torch.zeros((), dtype=torch.int64)
    new, exchanged, held = 1.0, 0, set()
    for turn in range(200):
        fakes = torch.arange(new, new + size).unsqueeze(1)
        new += size
        out = draw_from_pool(t, pool, count, fakes)
        if turn < 2:
            assert torch.equal(out, fakes) and count == 4 * (turn + 1)
            held |= set(fakes.flatten().tolist())
            continue
        swapped = {*out.flatten().tolist()} - {*fakes.flatten().tolist()}
        assert swapped <= held and len({*out.flatten().tolist()}) == size
        held = held - swapped | ({*fakes.flatten().tolist()} - {*out.flatten().tolist()})
        assert set(pool[:8].flatten().tolist()) == held and count == 8
        exchanged += len(swapped)
    assert 0.42 < exchanged / (198 * size) < 0.58


def test_began_moves_its_state_by_the_papers_rule(tmp_path):
    made = trainer("began", tmp_path, 1, log_every=1)
    made.train(progress=False)
    (row,) = run_directory.read_stats(made.run)
    real, fake = (
        row["loss_d"],
        row["loss_g"],
    )  # the first step has k = 0: the critic's loss is its error on real samples
    assert row["k"] == pytest.approx(min(max(0.1 * (0.5 * real - fake), 0), 1), abs=1e-6)
    assert row["convergence"] == pytest.approx(real + abs(0.5 * real - fake), rel=1e-5)
    assert made.state.tensors["k"].item() == pytest.approx(row["k"], abs=1e-7)


def test_a_recipe_has_a_batch_of_its_own(tmp_path):
    """CycleGAN's is one image, which normalises by itself; BatchNorm needs two in each process."""
    made = ganfast.Trainer(FOUR["cyclegan"], data_of("cyclegan"), steps=2, outdir=str(tmp_path))
    assert made.options.batch == 1 and made.options.lr_decay == "late-linear"
    run = made.train(progress=False)
    assert json.loads((run / "options.json").read_text())["options"]["batch"] == 1
    assert ganfast.Trainer(FOUR["cgan"], images(80), outdir=str(tmp_path)).options.batch == 64
    with pytest.raises(InputError, match=r"batch must be at least 2, because BatchNorm needs two samples.*\(--batch\)"):
        ganfast.Trainer(FOUR["cgan"], images(80), batch=1, outdir=str(tmp_path))
