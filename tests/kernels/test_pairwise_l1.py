"""The kernels of pairwise_l1 without a GPU: Triton's interpreter, and the machine code of both compilers."""

import pytest

pytest.importorskip("triton")


def test_triton_kernels_in_the_interpreter(interpret):
    interpret("pairwise_l1", "all_kernels")


ARCHS = [pytest.param("80", marks=pytest.mark.chips), "90", pytest.param("100", marks=pytest.mark.chips)]


@pytest.mark.parametrize("arch", ARCHS)
def test_triton_sums_stay_in_their_thread(arch, gate_rows):
    for row in gate_rows("pairwise_l1", arch):
        assert "SHFL" not in row["mix"] and "STS" not in row["mix"], row
        if "rows%16" in row["configuration"]:
            assert row["loads"].get(128), row  # a thread's run of others


@pytest.mark.parametrize("arch", ARCHS[:2])
def test_cuda_machine_code(arch, gate_rows):
    rows = gate_rows("pairwise_l1", arch, "cuda")
    assert len(rows) == 18  # forward, backward, double backward for 2, 4, 5, 8, 16 and 32 dimensions
    for row in rows:
        assert row["loop"] and row["limit"] != "memory", row
        dimensions = int(row["configuration"].split(",")[0])
        assert row["blocks"] >= (1 if dimensions == 32 else 2), row
        assert row["mix"]["LDS"] >= dimensions // 4, row  # the others, four dimensions at a time
