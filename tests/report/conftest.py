import json
import shutil

import pytest

from ganfast import Trainer
from ganfast.recipes import DCGAN


@pytest.fixture(scope="session")
def complete(tmp_path_factory):
    """A finished run with every file there can be; changed by no test."""
    outdir = tmp_path_factory.mktemp("runs")
    options = {"size": 16, "batch": 8, "steps": 12, "log_every": 2, "sample_every": 4, "checkpoint_every": 5}
    run = Trainer(DCGAN(width=4, latent_dim=8), "digits", outdir=str(outdir), **options).train(progress=False)
    shares = [k / 45 for k in range(10)]
    scores = {"accuracy": 0.97, "distance": 0.123, "real_shares": shares, "fake_shares": shares[::-1]}
    scores["agreements"] = [0.9 + k / 100 for k in range(10)]
    about = {"metric": "classes", "data": "digits", "samples": 100, "time": "2026-01-02 03:04:05"}
    rows = [{**about, "step": 5, **scores}, {**about, "step": 12, **scores, "accuracy": 0.98}]
    (run / "metric-classes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.fixture
def run(complete, tmp_path):
    """A copy of the complete run, to be damaged."""
    return shutil.copytree(complete, tmp_path / complete.name)
