"""The kernels of batch_norm_act without a GPU: Triton's interpreter, and their machine code."""

import re

import pytest

pytest.importorskip("triton")


SMALL = pytest.mark.parametrize("small", [False, True])  # one program for each few channels


@SMALL
@pytest.mark.parametrize("last", [False, True])
def test_kernels_in_the_interpreter(last, small, interpret):
    interpret("batch_norm_act", "all_kernels", last, small)


@SMALL
def test_variance_and_non_finite_values_in_the_interpreter(small, interpret):
    interpret("batch_norm_act", "variance_and_non_finite", small)


@SMALL
def test_running_statistics_in_the_interpreter(small, interpret):
    interpret("batch_norm_act", "running_statistics", small)


ARCHS = [pytest.param("80", marks=pytest.mark.chips), "90", pytest.param("100", marks=pytest.mark.chips)]
READ = {"moments": 1, "apply": 1, "sums": 2, "gradient": 2}  # tensors of a stage


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_machine_code(arch, gate_rows):
    """16 elements a thread of each tensor, 16 bytes at a time, where rows or planes are whole runs of 16 elements."""
    seen = set()
    for row in gate_rows("batch_norm_act", arch):
        assert row["faults"] == [], row
        last, stage = "LAST=True" in row["configuration"], re.search(r"STAGE=(\w+)|$", row["configuration"])[1]
        if stage not in READ or ("channels%16" if last else "inner%16") not in row["configuration"]:
            continue
        if last and "steps=1" in row["configuration"]:  # no loop: parameters are loaded beside the tile
            continue
        wide = 16 * (4 if row["dtype"] == "fp32" else 2) // 16
        assert row["loads"][128] == READ[stage] * wide, row
        assert row["stores"].get(128, 0) == (wide if stage in ("apply", "gradient") else 0), row
        assert row["blocks"] * row["threads"] >= 512, row  # each with 16 elements of every tensor under way
        seen.add((stage, last, row["dtype"]))
    assert len(seen) == 4 * 2 * 2
