"""The arithmetic that a run asks of torch, whatever a person has asked of it before."""

import pytest
import torch

from ganfast.errors import InputError
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
    assert precisions() == before


def modes():
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return CUDNN.benchmark, CUDNN.deterministic, *algorithms, torch.utils.deterministic.fill_uninitialized_memory


FAST, DETERMINISTIC = (True, False, False, False, True), (False, True, True, False, False)


@pytest.mark.parametrize(
    "device, asked, wanted", [("cuda", False, FAST), ("cuda", True, DETERMINISTIC), ("cpu", True, FAST)]
)
@pytest.mark.parametrize("person", [False, True])
def test_the_fastest_algorithms_or_deterministic_ones(device, asked, wanted, person, monkeypatch):
    """Whatever else a person has set, and as that was afterwards, also where the run fails."""
    if person:
        monkeypatch.setattr(CUDNN, "benchmark", True)
        torch.use_deterministic_algorithms(True, warn_only=True)
    before = modes()
    try:
        precision = Precision("fp32", torch.device(device), deterministic=asked)
        with pytest.raises(KeyboardInterrupt), precision.settings():
            assert modes()[:1] == wanted[:1] and (person or modes() == wanted)
            raise KeyboardInterrupt
        assert modes() == before
    finally:
        torch.use_deterministic_algorithms(False)


def fails(message):
    raise RuntimeError(message)


@pytest.mark.parametrize(
    "operation, error, message",
    [
        (
            lambda: torch.zeros(3).put_(torch.tensor([1]), torch.ones(1)),
            InputError,
            r"deterministic \(put_ does not have",
        ),
        (lambda: fails("another error"), RuntimeError, "^another error$"),
    ],
)
def test_an_operation_that_cannot_be_deterministic_is_named(operation, error, message):
    with pytest.raises(error, match=message), Precision("fp32", torch.device("cuda"), deterministic=True).settings():
        operation()
