"""The emulated extension and the library of faults, built once."""

import pytest
from cuda_on_cpu import build


def built(make, *args):
    if reason := build.missing():
        pytest.skip(reason)
    return make(*args)


@pytest.fixture(scope="session")
def emulated_extension():
    """The path of ganfast._C with its CUDA half for the CPU."""
    return built(build.extension)


@pytest.fixture(scope="session")
def faults_library():
    """The path of faults/faults.cu as a library."""
    return built(build.library, build.HERE / "faults")
