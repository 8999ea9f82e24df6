"""The kernels of interpolate without a GPU: Triton's interpreter, and what the gate does not know to ask for."""

import pytest

pytest.importorskip("triton")


def test_triton_kernel_in_the_interpreter(interpret):
    interpret("interpolate", "kernel")


ARCHS = [pytest.param("80", marks=pytest.mark.chips), "90", pytest.param("100", marks=pytest.mark.chips)]


@pytest.mark.parametrize("arch", ARCHS)
def test_triton_loads_16_bytes_where_samples_are_aligned(arch, gate_rows):
    rows = [row for row in gate_rows("interpolate", arch) if "size%16" in row["configuration"]]
    assert len(rows) == 3 * 3  # both sides, or one, in three dtypes
    for row in rows:
        sides = 2 - row["configuration"].count("=False")
        assert row["loads"][128] == sides * 16 * (4 if row["dtype"] == "fp32" else 2) // 16, row
        assert row["elements"] == 32 * 16, row


@pytest.mark.parametrize("arch", ARCHS[:2])
def test_cuda_loads_16_bytes_with_packs(arch, gate_rows):
    rows = gate_rows("interpolate", arch, "cuda")
    assert len(rows) == 6  # three dtypes, with packs and without
    for row in rows:
        assert row["blocks"] >= 2, row  # of 512 threads
        if "true" in row["configuration"]:
            assert set(row["loads"]) == set(row["stores"]) == {128}, row
