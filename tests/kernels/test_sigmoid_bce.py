"""The kernels of sigmoid_bce without a GPU: Triton's interpreter, and what the gate does not know to ask for."""

import pytest

pytest.importorskip("triton")


def test_triton_kernels_in_the_interpreter(interpret):
    interpret("""
        import torch
        from ganfast.ops import sigmoid_bce as op
        for dtype, bound in ((torch.float32, 2e-6), (torch.float16, 2**-10)):
            for n, m in ((1, 5), (4096, 4097), (9001, 0), (0, 0), (3, None), (None, 5000)):
                torch.manual_seed(0)
                real, fake = (None if k is None else (8 * torch.randn(k)).to(dtype) for k in (n, m))
                c = [None if x is None else torch.randn_like(x) for x in (real, fake)]
                g = torch.tensor(512.0)
                wide = [None if x is None else x.double() for x in (real, fake)]
                cwide = [None if x is None else x.double() for x in c]
                got = [op._triton_loss(real, fake, 0.9, 0.1), *op._triton_backward(g, real, fake, 0.9, 0.1)]
                got += op._triton_double(*c, g, real, fake, 0.9, 0.1)
                wanted = [op._reference_loss(*wide, 0.9, 0.1), *op._plain_backward(g.double(), *wide, 0.9, 0.1)]
                wanted += op._plain_double(*cwide, g.double(), *wide, 0.9, 0.1)
                for i, (a, b) in enumerate(zip(got, wanted)):
                    if m == 0 and i == 0:
                        assert a.isnan(), (dtype, n, m, i)  # the mean of an empty side
                        continue
                    assert a.shape == b.shape
                    error, size = float((a.double() - b).norm()), float(b.norm())
                    assert error <= bound * size + 1e-6 * (i == 3), (dtype, n, m, i, error, size)
    """)


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
