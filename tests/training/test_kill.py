"""kill -9 at a random moment, and going on: the same losses and the same weights, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
from training.tiny import without_times

from ganfast import Trainer
from ganfast.recipes import DCGAN
from ganfast.training import checkpoint, run_directory

OPTIONS = [
    "--data", "digits", "--size", "16", "--width", "4", "--batch", "16", "--steps", "60",
    "--log-every", "3", "--checkpoint-every", "7", "--sample-every", "30", "--flip",
]  # fmt: skip


def start(*options):
    return subprocess.Popen(
        [sys.executable, "-m", "ganfast.cli", "train", "dcgan", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


@pytest.mark.slow
def test_killed_runs_go_on_bit_for_bit(tmp_path):
    options = {"size": 16, "batch": 16, "steps": 60, "log_every": 3, "checkpoint_every": 7, "sample_every": 30}
    trainer = Trainer(DCGAN(width=4), "digits", flip=True, outdir=str(tmp_path / "whole"), **options)
    whole = trainer.train(progress=False)

    process = start(*OPTIONS, "--outdir", str(tmp_path / "killed"))
    killed = tmp_path / "killed" / "00000-dcgan-digits"
    moments = random.Random(os.urandom(8))
    kills = 0
    for _ in range(2):
        seen = len(run_directory.read_stats(killed))
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:  # until it has trained on, and saved
            if checkpoint.all_in(killed) and len(run_directory.read_stats(killed)) > seen:
                break
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        process = start("--resume", str(killed))
    finish(process)
    assert kills >= 1

    last = checkpoint.name(60)
    for name in ("G", "D", "generator"):
        one, other = load_file(whole / last / f"{name}.safetensors"), load_file(killed / last / f"{name}.safetensors")
        assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)
    rows = [without_times(run_directory.read_stats(run)) for run in (whole, killed)]
    assert rows[0] == rows[1] and len(rows[0]) == 20
    assert (whole / "fakes.png").read_bytes() == (killed / "fakes.png").read_bytes()


@pytest.mark.slow
def test_ctrl_c_in_a_terminal(tmp_path):
    process = start(*OPTIONS, "--steps", "100000", "--checkpoint-every", "100000", "--outdir", str(tmp_path))
    run = tmp_path / "00000-dcgan-digits"
    while len(run_directory.read_stats(run)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert f"Go on with: ganfast train dcgan --resume {run}" in err
    (saved,) = checkpoint.all_in(run)
    assert checkpoint.read_manifest(saved)["step"] > 5
