"""The kernels of interpolate without a GPU: Triton's interpreter, and the machine code of both compilers."""

import subprocess
import sys
import textwrap

import machine_code
import pytest


def test_triton_kernel_in_the_interpreter():
    pytest.importorskip("triton")
    code = """
        import os; os.environ["TRITON_INTERPRET"] = "1"
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
        print("ok")
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert run.stdout.strip() == "ok", run.stderr


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_triton_machine_code(dtype, arch, tmp_path):
    kernels = pytest.importorskip("ganfast.kernels.interpolate", reason="triton is not installed")
    signature = dict.fromkeys(("real", "fake", "out"), f"*{dtype}")
    signature |= {"epsilon": "*fp32", "size": "i32", "blocks": "i32"}
    constants = {"HAS_REAL": True, "HAS_FAKE": True, "BLOCK": kernels.BLOCK}
    compiled = machine_code.triton_compile(
        kernels.interpolate_kernel, signature, constants, arch, num_warps=8, divisible=("size",)
    )
    text = machine_code.sass(compiled.asm["cubin"], tmp_path)
    assert "LDL" not in text and "STL" not in text  # nothing spilled
    # 16 elements a thread of each side in 16-byte loads
    assert machine_code.global_loads(text)[128] == 2 * 16 * (4 if dtype == "fp32" else 2) // 16
    assert machine_code.global_loads(text)[16] == 0


@pytest.mark.parametrize("changed", [{"HAS_REAL": False}, {"HAS_FAKE": False}, {"size": 1, "blocks": 1}])
def test_triton_variants(changed, tmp_path):
    """An absent side, and numbers equal to 1, which a launch takes as constants."""
    kernels = pytest.importorskip("ganfast.kernels.interpolate", reason="triton is not installed")
    signature = dict.fromkeys(("real", "fake", "out"), "*bf16")
    signature |= {"epsilon": "*fp32", "size": "i32", "blocks": "i32"}
    constants = {"HAS_REAL": True, "HAS_FAKE": True, "BLOCK": kernels.BLOCK} | changed
    compiled = machine_code.triton_compile(kernels.interpolate_kernel, signature, constants, 90, num_warps=8)
    text = machine_code.sass(compiled.asm["cubin"], tmp_path)
    assert "EXIT" in text and "LDL" not in text and "STL" not in text


@pytest.mark.parametrize(
    "arch", [pytest.param("80", marks=pytest.mark.slow), "90a", pytest.param("100a", marks=pytest.mark.slow)]
)
def test_cuda_machine_code(arch, tmp_path):
    found = machine_code.nvcc_resources(machine_code.ROOT / "csrc" / "cuda" / "interpolate.cu", arch, tmp_path)
    assert len(found) == 6  # three dtypes, with packs and without
    for name, registers, spilled in found:
        assert spilled == 0, name
        assert registers <= 64, name  # 512 threads: two blocks a multiprocessor at least
    text = machine_code.sass((tmp_path / "out.cubin").read_bytes(), tmp_path)
    assert "LDL" not in text and "STL" not in text
    assert machine_code.global_loads(text)[128] >= 3 * (4 + 2 + 2)  # both sides, or one of them
