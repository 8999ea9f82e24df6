"""Shared by all tests: fast ones first, GPU tests skip without a GPU, real data where it lies."""

import os
import signal
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what is in the background; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)  # stable: fast first


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")  # here, so that the summary folds them into one line


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: GANFAST_TEST_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("GANFAST_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set GANFAST_TEST_DATA)")
    return folder
