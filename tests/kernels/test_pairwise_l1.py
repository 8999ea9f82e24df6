"""The kernels of pairwise_l1 without a GPU: Triton's interpreter, and the machine code of both compilers."""

import pytest

pytest.importorskip("triton")


def test_triton_kernels_in_the_interpreter(interpret):
    interpret("""
        import torch
        from ganfast.kernels import pairwise_l1 as kernels
        from ganfast.ops import pairwise_l1 as op
        kernels.BLOCK_I = 8

        def wide(*tensors):
            return [None if t is None else t.double() for t in tensors]

        shapes = ((1, None, 1, 1), (9, None, 2, 5), (5, 19, 3, 4), (10, 1, 1, 17), (10, 9, 2, 8))
        shapes += ((5, 0, 2, 2), (0, 4, 2, 2), (4, 3, 2, 0), (4, None, 0, 3))
        for dtype, rounding in ((torch.float32, 0), (torch.float16, 2**-11)):
            for rows, others, nk, kd in shapes:
                torch.manual_seed(0)
                x = (torch.randn(rows, nk, kd) / max(kd, 1)).to(dtype)
                y = None if others is None else (torch.randn(others, nk, kd) / max(kd, 1)).to(dtype)
                x[1:2] = x[:1]
                cx, cy = (None if t is None else torch.randn_like(t) for t in (x, y))
                g = torch.randn(rows, nk).to(dtype)
                got = [op._triton_sums(x, y), *op._triton_backward(g, x, y), *op._triton_double(cx, cy, g, x, y)]
                wanted = [op._plain_sums(*wide(x, y)), *op._plain_backward(*wide(g, x, y))]
                wanted += op._plain_double(*wide(cx, cy, g, x, y))
                for i, (a, b) in enumerate(zip(got, wanted)):
                    assert a.shape == b.shape and a.dtype == dtype, i
                    error = float((a.double() - b).norm())
                    assert error <= (2e-6 + rounding) * float(b.norm()), (dtype, rows, others, nk, kd, i, error)
    """)


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
