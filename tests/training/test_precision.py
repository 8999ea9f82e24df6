"""The arithmetic that a run asks of torch, whatever a person has asked of it before."""

import pytest
import torch

from ganfast.training.precision import Precision

MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn
KINDS = MATMUL, CUDNN.conv, CUDNN.rnn


def old_switches(on):
    MATMUL.allow_tf32 = CUDNN.allow_tf32 = on


def new_switches(precision):
    for kind in (torch.backends, *KINDS):
        kind.fp32_precision = precision


def precisions():
    return [kind.fp32_precision for kind in KINDS]


@pytest.fixture(autouse=True)
def defaults():
    before = MATMUL.allow_tf32, CUDNN.allow_tf32, torch.backends.fp32_precision, precisions()
    yield
    MATMUL.allow_tf32, CUDNN.allow_tf32, torch.backends.fp32_precision, kinds = before
    for kind, precision in zip(KINDS, kinds):
        kind.fp32_precision = precision


@pytest.mark.parametrize("name", ["fp32", "tf32"])
@pytest.mark.parametrize(
    "person",
    [
        lambda: None,
        lambda: old_switches(False),
        lambda: old_switches(True),
        lambda: new_switches("ieee"),
        lambda: new_switches("tf32"),
        lambda: setattr(CUDNN.conv, "fp32_precision", "ieee"),  # torch then refuses to read allow_tf32
    ],
    ids=["nothing", "old off", "old on", "new off", "new on", "new off for convolutions"],
)
def test_tf32_only_where_asked_for_and_afterwards_as_before(name, person):
    person()
    before = precisions()
    with Precision(name, torch.device("cpu")).settings():
        assert precisions() == ["tf32" if name == "tf32" else "ieee"] * 3
        assert MATMUL.allow_tf32 == CUDNN.allow_tf32 == (name == "tf32")
        assert CUDNN.deterministic and not CUDNN.benchmark
    assert precisions() == before
    assert not CUDNN.deterministic
