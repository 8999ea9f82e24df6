"""The kernels of interpolate without a GPU: Triton's interpreter, and what the gate does not know to ask for."""

import pytest

pytest.importorskip("triton")


def test_triton_kernel_in_the_interpreter(interpret):
    interpret("""
        import torch
        from ganfast.ops import interpolate as op
        torch.manual_seed(0)
        for dtype, bound in ((torch.float32, 3e-7), (torch.float16, 2**-11 + 3e-7)):
            for shape in ((1, 1), (7,), (5, 3, 7), (2, 4096), (3, 4099), (2, 9001), (0, 4), (3, 0)):
                real, fake = (torch.randn(shape).to(dtype) for _ in range(2))
                epsilon = torch.rand(shape[0])
                e = epsilon.double().reshape(-1, *[1] * (len(shape) - 1))
                for x, y in ((real, fake), (real, None), (None, fake)):
                    got = op._triton(x, y, epsilon)
                    parts = [f * z.double() for f, z in ((e, x), (1 - e, y)) if z is not None]
                    error, size = (got.double() - sum(parts)).abs(), sum(p.abs() for p in parts)
                    assert got.dtype == dtype and got.shape == shape
                    assert bool((error <= bound * size + 2**-24).all()), (dtype, shape, error.max())
    """)


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
