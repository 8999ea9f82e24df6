"""The kernels of pairwise_l1 without a GPU: Triton's interpreter, and the machine code of both compilers."""

import re
import subprocess
import sys
import textwrap

import machine_code
import pytest


def test_triton_kernels_in_the_interpreter():
    pytest.importorskip("triton")
    code = """
        import os; os.environ["TRITON_INTERPRET"] = "1"
        import torch
        from ganfast.ops import pairwise_l1 as op

        def wide(*tensors):
            return [None if t is None else t.double() for t in tensors]

        shapes = ((1, None, 1, 1), (33, None, 2, 5), (5, 35, 3, 4), (40, 1, 1, 17), (34, 9, 2, 8))
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
        print("ok")
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert run.stdout.strip() == "ok", run.stderr


@pytest.mark.parametrize("double", [False, True], ids=["first", "double"])
@pytest.mark.parametrize("kernel", ["sum_kernel", "pull_kernel"])
@pytest.mark.parametrize("kd", [5, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 8, 16, 41))])
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_triton_machine_code(arch, kd, kernel, double, tmp_path):
    kernels = pytest.importorskip("ganfast.kernels.pairwise_l1", reason="triton is not installed")
    function = getattr(kernels, kernel)
    constants = {
        "KD": kd, "PART": kernels.PART, "DOUBLE": double, "BLOCK_I": kernels.BLOCK_I, "BLOCK_J": kernels.block_j(kd)
    }  # fmt: skip
    if kernel == "pull_kernel":
        constants |= {"HAS_A": True, "HAS_B": True, "BLOCK_D": kernels.block_d(kd)}
    signature = dict.fromkeys(function.arg_names, "*fp32") | dict.fromkeys(("rows", "others", "nk"), "i32")
    compiled = machine_code.triton_compile(
        function, signature, constants, arch, num_warps=kernels.WARPS, divisible=("rows", "others")
    )
    text = machine_code.sass(compiled.asm["cubin"], tmp_path)
    assert "LDL" not in text and "STL" not in text  # nothing spilled
    assert "SHFL.BFLY" not in text and "BAR.SYNC" not in text  # sums over the others stay in their thread
    loads = machine_code.global_loads(text)
    assert not loads[16] and not loads[8]
    assert loads[128]  # a thread's run of others


@pytest.mark.parametrize(
    "arch", [pytest.param("80", marks=pytest.mark.slow), "90a", pytest.param("100a", marks=pytest.mark.slow)]
)
def test_cuda_machine_code(arch, tmp_path):
    found = machine_code.nvcc_resources(machine_code.ROOT / "csrc" / "cuda" / "pairwise_l1.cu", arch, tmp_path)
    assert len(found) == 18  # forward, backward, double backward for 2, 4, 5, 8, 16 and 32 dimensions
    for name, registers, spilled in found:
        assert spilled == 0, name
        assert registers <= (255 if "ILi32E" in name else 128 if "ILi16E" in name else 96), name  # 2 blocks, 1 for 32
    text = machine_code.sass((tmp_path / "out.cubin").read_bytes(), tmp_path)
    assert "LDL" not in text and "STL" not in text
    assert "RED." not in text and "ATOM" not in text  # no atomics
    assert len(re.findall(r"\bLDS\.128", text)) >= 18  # the others, four dimensions at a time
