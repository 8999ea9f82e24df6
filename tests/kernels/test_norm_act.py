"""The kernels of norm_act without a GPU: Triton's interpreter, and their machine code."""

import pytest

pytest.importorskip("triton")


WHOLE = pytest.mark.parametrize("whole", [False, True])  # a program has whole sets


@WHOLE
@pytest.mark.parametrize("last", [False, True])
def test_kernels_in_the_interpreter(last, whole, interpret):
    interpret("norm_act", "all_kernels", last, whole)


@WHOLE
def test_variance_and_non_finite_values_in_the_interpreter(whole, interpret):
    interpret("norm_act", "variance_and_non_finite", whole)
