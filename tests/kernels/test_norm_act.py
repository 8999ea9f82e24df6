"""The kernels of norm_act without a GPU: Triton's interpreter, and their machine code."""

import re

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


ARCHS = [pytest.param("80", marks=pytest.mark.chips), "90", pytest.param("100", marks=pytest.mark.chips)]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_machine_code(arch, gate_rows):
    """16 elements a thread of each tensor, 16 bytes at a time, where rows or planes are whole runs of 16 elements."""
    seen = set()
    for row in gate_rows("norm_act", arch):
        assert row["faults"] == [], row
        words = dict(re.findall(r"(\w+)=(\w+)", row["configuration"]))
        aligned = "channels%16" if words.get("LAST") == "True" else "inner%16"
        if not row["loop"] or aligned not in row["configuration"] or "STAGE" not in words:
            continue  # without a loop numbers of slots are loaded beside the tile
        pixels = 2 if words["WEIGHT"] == "pixel" else 0  # weight and bias, and their gradients
        read = (1 if row["kernel"] == "forward_kernel" else 2) + pixels
        written = 1 + (pixels if row["kernel"] == "backward_kernel" else 0)
        wide = 16 * (4 if row["dtype"] == "fp32" else 2) // 16
        assert row["loads"] == {128: read * wide}, row
        first = words["STAGE"] in ("moments", "sums") or (words["STAGE"] == "whole" and row["stores"] == {})
        assert row["stores"] == ({} if first else {128: written * wide}), row
        assert row["blocks"] * row["threads"] >= 512, row  # each with 16 elements of every tensor under way
        seen.add((row["kernel"], words["STAGE"], words["LAST"], row["dtype"]))
    stages = {("forward_kernel", s) for s in ("moments", "apply", "whole")}
    stages |= {("backward_kernel", s) for s in ("sums", "gradient", "whole")}
    assert {each[:2] for each in seen if each[2] == "True"} == stages and len(seen) == 2 * (6 + 2)
