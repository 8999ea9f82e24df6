"""Tiny runs that train in a second."""

import pytest
from tape import tape
from training.tiny import TINY

from ganfast import Trainer
from ganfast.recipes import DCGAN

__all__ = ["tape"]


@pytest.fixture
def tiny(tmp_path):
    """tiny(steps=12, width=4, **options) → a Trainer of a tiny DCGAN on the digits, writing under tmp_path/runs."""

    def make(steps: int | None = 12, d_steps: int = 1, lr: float = 2e-4, **options) -> Trainer:
        merged = {**TINY, "steps": steps, "outdir": str(tmp_path / "runs"), **options}
        return Trainer(DCGAN(width=4, latent_dim=8, d_steps=d_steps, lr=lr), merged.pop("data", "digits"), **merged)

    return make
