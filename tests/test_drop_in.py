"""docs/drop-in.md: its examples do what it says, and training with and without ganfast's lines is the same."""

import contextlib
import io
import re
from pathlib import Path

import drop_in
import pytest
import torch
from tape import tape

import ganfast
from ganfast.data import open_dataset

__all__ = ["tape"]  # the fixture

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "drop-in.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_the_example_prints_what_the_page_says():
    printed = re.search(r"```text\n(.*?)```", PAGE, re.S)[1]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(BLOCKS[0], {})
    assert out.getvalue() == printed


def trained(block, steps):
    """What the block's loop makes of small networks: their parameters."""
    torch.manual_seed(0)
    names = {
        "torch": torch, "nn": torch.nn, "batch": 4, "nz": 8, "device": "cpu",
        "netG": drop_in.Generator(8, width=2), "netD": drop_in.Discriminator(width=2),
        "loader": [(torch.randn(4, 3, 64, 64).tanh(), None) for _ in range(steps)],
    }  # fmt: skip
    if "gradient_penalty" in block:  # a critic has no probabilities, and no statistics of the batch
        layers = [layer for layer in names["netD"].main[:-1] if not isinstance(layer, torch.nn.BatchNorm2d)]
        names["netD"] = torch.nn.Sequential(*layers, torch.nn.Flatten(0))
    exec(compile(block, "drop-in.md", "exec"), names)
    return [p.detach().clone() for net in ("netG", "netD") for p in names[net].parameters()]


LOOPS = pytest.mark.parametrize("block", BLOCKS[1:], ids=["dcgan", "wgan-gp"])


@LOOPS
def test_the_loops_train_as_without_capture(block):
    plain = re.sub(r"^\w+ = ganfast\.capture\(.*\n", "", block, flags=re.M)
    a, b, untrained = trained(block, 6), trained(plain, 6), trained(block, 0)
    assert "capture" not in plain and all(torch.equal(x, y) for x, y in zip(a, b))
    assert not any(torch.equal(x, y) for x, y in zip(a, untrained))


@LOOPS
def test_the_loops_train_as_graphs(block, tape):
    """On a stand-in for a graph: tests/tape.py. The rate is an fp32 number there."""
    plain = re.sub(r"^\w+ = ganfast\.capture\(.*\n", "", block, flags=re.M)
    steps = 25 if "gradient_penalty" in block else 7
    a, b = trained(block, steps), trained(plain, steps)
    assert [graph.replays for graph in tape] == ([22, 2] if "gradient_penalty" in block else [4])
    for x, y in zip(a, b):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-5)


def test_losses_agree():
    dataset = open_dataset("digits", size=64)
    plain, fused = (drop_in.train(fuse, dataset, steps=3, width=4, batch=8, latent=16) for fuse in (False, True))
    for a, b in zip(plain, fused):
        assert b == pytest.approx(a, rel=2e-3)  # fp32 rounding, three steps of Adam
    assert len({d for d, _ in plain}) == 3  # it does train
    assert drop_in.table(plain, fused, plain).count("\n") == 1 + 3  # steps 1, 2, 3


def test_the_whole_dcgan_is_fused():
    for network in (drop_in.Generator(width=2), drop_in.Discriminator(width=2)):
        assert str(ganfast.fuse(network)).startswith("ganfast.fuse: 5 of 5 convolutions fused")


def test_the_page_has_its_table():
    assert re.search(r"<!-- losses: .*? -->\n\d+ steps on `.*\n\n\| step \|", PAGE)
