"""The kernels of sigmoid_bce without a GPU: Triton's interpreter, and what the gate does not know to ask for."""

import pytest

pytest.importorskip("triton")


def test_triton_kernels_in_the_interpreter(interpret):
    interpret("sigmoid_bce", "all_kernels")


ARCHS = [pytest.param("80", marks=pytest.mark.chips), "90", pytest.param("100", marks=pytest.mark.chips)]


@pytest.mark.parametrize("arch", ARCHS)
def test_triton_reads_and_writes_four_elements_at_once(arch, gate_rows):
    for row in gate_rows("sigmoid_bce", arch):
        if row["kernel"] == "finish_kernel":
            continue
        wide = 128 if row["dtype"] == "fp32" else 64  # every step of a whole tile; only the last tile has a mask
        sides = 2 if row["kernel"] == "double_kernel" else 1
        assert row["loads"][wide] == 4 * sides, row
        assert row["kernel"] == "loss_kernel" or row["stores"][wide] == 4, row
        assert row["elements"] == 32 * 16, row  # a tile of 4096 by 256 threads
        assert row["blocks"] >= 4, row


@pytest.mark.parametrize("arch", ARCHS[:2])
def test_cuda_reads_and_writes_16_bytes_at_once(arch, gate_rows):
    rows = gate_rows("sigmoid_bce", arch, "cuda")
    assert len(rows) == 10  # three kernels in three dtypes, and the sum of the blocks
    for row in rows:
        assert row["threads"] == 256 and row["blocks"] >= 4, row
        if row["kernel"] != "finish_kernel":
            assert row["loop"], row
            assert set(row["loads"]) == {128}, row
            assert set(row["stores"]) == (set() if row["kernel"] == "loss_kernel" else {128}), row
