"""Shared by all tests: fast ones first, in random order where pytest-randomly is; GPU tests skip without a GPU; real
data where it lies; no cache but the session's own.
"""

import gc
import os
import shutil
import signal
import tempfile
import zlib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

CACHES = {
    "GANFAST_CACHE": "ganfast", "MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton", "TRITON_HOME": "triton-home", "XDG_CACHE_HOME": "other",
}  # fmt: skip
OWN_CACHES = "PYTEST_XDIST_WORKER" not in os.environ  # workers, and processes that tests start, inherit the session's
if OWN_CACHES:  # before ganfast is imported
    caches = tempfile.mkdtemp(prefix="ganfast-tests-")
    os.environ.update({name: os.path.join(caches, folder) for name, folder in CACHES.items()})

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what is in the background; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)  # stable: fast first


def pytest_unconfigure():
    gc.unfreeze()
    if OWN_CACHES:
        shutil.rmtree(caches, ignore_errors=True)


def pytest_terminal_summary(terminalreporter, config):
    seed = config.getoption("randomly_seed", None)
    if seed is not None and {"failed", "error"} & set(terminalreporter.stats):
        terminalreporter.write_line(f"the same order and random numbers: ARGS=--randomly-seed={seed}")


def pytest_runtest_setup(item):
    seed = item.config.getoption("randomly_seed", None) or 0
    torch.manual_seed(seed + zlib.crc32(item.nodeid.encode()))  # whichever tests ran before
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")  # here, so that the summary folds them into one line


@pytest.fixture(scope="module", autouse=True)
def no_garbage_in_what_stays():
    """Imports leave a million objects behind, which no later collection need look through."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def exact_fp32(request):
    """On a GPU cuDNN's convolutions in fp32 are TF32 by default, with 10 bits of the 23 that tests count on."""
    if not request.node.get_closest_marker("gpu"):
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    kinds = matmul, cudnn.conv, cudnn.rnn
    before = [kind.fp32_precision for kind in kinds]
    matmul.allow_tf32 = cudnn.allow_tf32 = False  # both of torch's switches: it refuses to read one that differs
    for kind in kinds:
        kind.fp32_precision = "ieee"
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = (precision == "tf32" for precision in before[:2])
    for kind, precision in zip(kinds, before):
        kind.fp32_precision = precision


@pytest.fixture
def inductor():
    """Inductor's code without vectors: it compiles a program for each kind that this CPU may have."""
    with torch._inductor.config.patch({"cpp.simdlen": 1}):
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: GANFAST_TEST_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("GANFAST_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set GANFAST_TEST_DATA)")
    return folder
