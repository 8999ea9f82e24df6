"""conv_bn_act's Triton backend as the operator calls it, in Triton's interpreter, against the reference in fp64."""

import pytest

pytest.importorskip("triton")


def test_the_operator_in_the_interpreter(interpret):
    interpret("conv_bn_act_operator", "operator", 0, 7)
