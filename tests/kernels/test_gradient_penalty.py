"""The kernels of gradient_penalty without a GPU: Triton's interpreter, and the machine code of both compilers."""

import pytest

pytest.importorskip("triton")


@pytest.mark.parametrize("hold", [16384, 64])  # 64: samples that one program cannot hold; chunks of two blocks
def test_triton_kernels_in_the_interpreter(hold, interpret):
    interpret("gradient_penalty", "all_kernels", hold)


def test_triton_sums_out_of_range_in_the_interpreter(interpret):
    interpret("gradient_penalty", "sums_out_of_range")


ARCHS = [pytest.param("80", marks=pytest.mark.chips), "90", pytest.param("100", marks=pytest.mark.chips)]
PASSES = {"whole_kernel": 1, "squares_kernel": 1, "scale_kernel": 1}  # tensors that are read; of the others, two


@pytest.mark.parametrize("arch", ARCHS)
def test_triton_loads_16_bytes_where_samples_are_aligned(arch, gate_rows):
    seen = set()
    for row in gate_rows("gradient_penalty", arch):
        if row["kernel"] == "finish_kernel" or "size%16" not in row["configuration"] or not row["elements"]:
            continue
        each = row["elements"] / 32  # elements a thread
        assert each in (16, 32), row
        wide = PASSES.get(row["kernel"], 2) * each * (4 if row["dtype"] == "fp32" else 2) / 16
        assert row["loads"][128] == wide, row
        seen.add((row["kernel"], row["dtype"]))
    assert len(seen) == 6 * 2


@pytest.mark.parametrize("arch", ARCHS[:2])
def test_cuda_machine_code(arch, gate_rows):
    rows = gate_rows("gradient_penalty", arch, "cuda")
    assert len(rows) == 25  # four kernels in three dtypes, with packs and without, and the sum of the batch
    for row in rows:
        packs = "true" in row["configuration"]
        assert row["blocks"] >= (2 if packs and row["kernel"] != "double_kernel" else 1), row  # of 512 threads
        if packs:  # 32 elements a thread of each tensor
            wide = PASSES.get(row["kernel"], 2) * 32 * (4 if row["dtype"] == "fp32" else 2) // 16
            assert row["loads"] == {128: wide}, row
