"""docs/drop-in.md: its example prints what it says, and training with and without ganfast.fuse is the same."""

import contextlib
import io
import re
from pathlib import Path

import drop_in
import pytest

import ganfast
from ganfast.data import open_dataset

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "drop-in.md").read_text()


def test_the_example_prints_what_the_page_says():
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]
    printed = re.search(r"```text\n(.*?)```", PAGE, re.S)[1]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert out.getvalue() == printed


def test_losses_agree():
    dataset = open_dataset("digits", size=64)
    plain, fused = (drop_in.train(fuse, dataset, steps=3, width=4, batch=8, latent=16) for fuse in (False, True))
    for a, b in zip(plain, fused):
        assert b == pytest.approx(a, rel=2e-3)  # fp32 rounding, three steps of Adam
    assert len({d for d, _ in plain}) == 3  # it does train
    assert drop_in.table(plain, fused, plain).count("\n") == 1 + 3  # steps 1, 2, 3


def test_the_dcgan_is_fused_but_for_its_sigmoid():
    assert str(ganfast.fuse(drop_in.Generator(width=2))).startswith("ganfast.fuse: 5 of 5 convolutions fused")
    assert [bool(row.reason) for row in ganfast.fuse(drop_in.Discriminator(width=2)).rows] == [False] * 4 + [True]


def test_the_page_has_its_table():
    assert re.search(r"<!-- losses: .*? -->\n\d+ steps on `.*\n\n\| step \|", PAGE)
