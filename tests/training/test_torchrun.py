"""`torchrun -m ganfast train` as a person starts it: one run directory, and nothing lost when a process dies."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._pytree import tree_leaves
from training.tiny import without_times

from ganfast.training import checkpoint, run_directory

pytestmark = pytest.mark.slow
TRAIN = [
    "-m", "ganfast", "train", "dcgan", "--data", "digits", "--size", "16", "--width", "4", "--batch", "16",
    "--log-every", "3", "--checkpoint-every", "7", "--sample-every", "60",
]  # fmt: skip


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen, code: int = 0) -> str:
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return err


def workers(agent: subprocess.Popen) -> list[int]:
    """Process ids below torchrun."""
    found = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return [int(pid) for pid in found]


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_worker_of_two_machines_is_killed_and_the_job_goes_on(tmp_path):
    steps = ["--steps", "60"]
    finish(start("--standalone", "--nproc-per-node=2", *TRAIN, *steps, "--outdir", str(tmp_path / "whole")))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    agents = [
        start(
            "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-id=job7", "--rdzv-backend=c10d",
            f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1",
            *TRAIN, *steps, "--outdir", str(tmp_path / "killed"),
        )
        for _ in range(2)
    ]  # fmt: skip
    run = tmp_path / "killed" / "00000-dcgan-digits"
    wait_for(lambda: checkpoint.all_in(run), agents[0])
    os.kill(workers(random.choice(agents))[0], signal.SIGKILL)
    for agent in agents:
        finish(agent)
    whole = tmp_path / "whole" / "00000-dcgan-digits"
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [run.name]
    assert "from step" in (run / "log.txt").read_text()
    for name in ("G", "D", "generator"):
        one, other = (load_file(each / checkpoint.name(60) / f"{name}.safetensors") for each in (whole, run))
        assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)
    rows = [without_times(run_directory.read_stats(each)) for each in (whole, run)]
    assert rows[0] == rows[1] and len(rows[0]) == 20 and rows[0][-1]["images"] == 60 * 16


def test_sigterm_saves_once_and_another_number_of_processes_goes_on(tmp_path):
    job = start("--standalone", "--nproc-per-node=2", *TRAIN, "--steps", "100000", "--outdir", str(tmp_path))
    run = tmp_path / "00000-dcgan-digits"
    wait_for(lambda: len(run_directory.read_stats(run)) > 2, job)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=60)
    saved = checkpoint.all_in(run)[-1]
    step = checkpoint.read_manifest(saved)["step"]
    assert f"Stopped at step {step} of 100000" in (run / "log.txt").read_text()
    finish(start("--standalone", "--nproc-per-node=1", "-m", "ganfast", "train", "dcgan", "--resume", str(run),
                 "--steps", str(step + 5)))  # fmt: skip
    assert checkpoint.read_manifest(checkpoint.all_in(run)[-1])["step"] == step + 5


def test_a_mistake_is_said_once(tmp_path):
    job = start("--standalone", "--nproc-per-node=2", *TRAIN, "--batch", "15", "--outdir", str(tmp_path))
    err = job.communicate(timeout=120)[1]
    assert job.returncode and err.count("ganfast: batch 15 cannot be shared by 2 processes") == 1


def test_what_one_process_finds_not_finite_takes_all_back(tmp_path):
    finish(
        start("--standalone", "--nproc-per-node=2", str(Path(__file__).with_name("rollback_worker.py")), str(tmp_path))
    )
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one["went_back"] == [(8, 4), (12, 8)]  # the row of step 8 told of 6
    assert "a weight is no longer finite at step 12" in (tmp_path / "00000-dcgan-digits" / "log.txt").read_text()
    assert one["went_back"][1] == other["went_back"][1] and one["position"] == other["position"] == (14 + 4 + 4) * 8
    leaves, others = tree_leaves(one), tree_leaves(other)
    assert len(leaves) == len(others) > 50
    for a, b in zip(leaves, others):
        assert a.isfinite().all() and torch.equal(a, b) if torch.is_tensor(a) else type(a) is type(b)
    rows = run_directory.read_stats(tmp_path / "00000-dcgan-digits")
    assert [row["step"] for row in rows] == list(range(2, 15, 2)) and rows[-1]["rollbacks"] == 2
