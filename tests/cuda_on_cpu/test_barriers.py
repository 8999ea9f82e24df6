"""Every barrier of csrc/cuda is needed: without it, tests of an operator fail on the emulated CUDA half."""

import re

import pytest
from cuda_on_cpu import build, translate
from cuda_on_cpu.test_operators import FILES, run_tests

BARRIERS = [
    (path.name, number)
    for path in sorted(build.CSRC.glob("cuda/*.cu*"))
    for number in range(len(translate.barriers(path.read_text())))
]


def users(name, number):
    """The operators that meet this barrier: the file's own, or those that call the header's function."""
    if name.endswith(".cu"):
        return [name[:-3]]
    text = (build.CSRC / "cuda" / name).read_text()
    before = text[: translate.barriers(text)[number].start()]
    function = re.findall(r"__device__ __forceinline__ \w+ (\w+)\(", before)[-1]
    return [operator for operator, path in FILES.items() if re.search(rf"\b{function}\b", path.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), BARRIERS)
def test_without_it_a_test_fails(name, number, emulated_extension):
    library = build.extension(removed=(name, number))
    for operator in users(name, number):
        run = run_tests(operator, library, "-x", "-k", "every_backend or same_bits or more_blocks")
        assert run.returncode in (0, 1), run.stdout[-3000:] + run.stderr
        if run.returncode == 1:
            return
    pytest.fail(f"no test notices the absence of barrier {number} of {name}")
