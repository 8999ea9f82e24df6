"""The kernels of sigmoid_bce without a GPU: Triton's interpreter, and the machine code of both compilers."""

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
        from ganfast.ops import sigmoid_bce as op
        for dtype, bound in ((torch.float32, 2e-6), (torch.float16, 2**-10)):
            for n, m in ((1, 5), (4096, 4097), (9001, 0), (3, None), (None, 5000)):
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
                    if m == 0 and i == 0 or m == 0 and i == 3:
                        assert a.isnan(), (dtype, n, m, i)  # the mean of an empty side
                        continue
                    assert a.shape == b.shape
                    error, size = float((a.double() - b).norm()), float(b.norm())
                    assert error <= bound * size + 1e-6 * (i == 3), (dtype, n, m, i, error, size)
        print("ok")
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert run.stdout.strip() == "ok", run.stderr


KERNELS = {
    "loss_kernel": "real fake n_real n_fake t_real t_fake tiles_real partial",
    "backward_kernel": "g real fake dreal dfake n_real n_fake over_real over_fake t_real t_fake tiles_real",
    "double_kernel": "c_real c_fake g real fake dreal dfake n_real n_fake over_real over_fake t_real t_fake tiles_real "
    "partial",
}


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_triton_machine_code(kernel, dtype, arch, tmp_path):
    kernels = pytest.importorskip("ganfast.kernels.sigmoid_bce", reason="triton is not installed")
    pointers = dict.fromkeys(("real", "fake", "dreal", "dfake", "c_real", "c_fake"), f"*{dtype}")
    pointers |= {"g": "*fp32", "partial": "*fp32"}
    signature = {}
    for name in KERNELS[kernel].split():
        signature[name] = pointers.get(name, "i32" if name.startswith(("n_", "tiles")) else "fp32")
    constants = {"BLOCK": kernels.BLOCK, "STEPS": kernels.STEPS}
    compiled = machine_code.triton_compile(getattr(kernels, kernel), signature, constants, arch, num_warps=8)
    text = machine_code.sass(compiled.asm["cubin"], tmp_path)
    assert "LDL" not in text and "STL" not in text  # nothing spilled
    # 4 elements a thread in one load: every step of a whole tile (only the last tile's loads have a mask and are
    # narrow); the compiler merges the code of the two sides
    wide = 128 if dtype == "fp32" else 64
    assert machine_code.global_loads(text)[wide] >= kernels.STEPS * (2 if kernel == "double_kernel" else 1)


@pytest.mark.parametrize(
    "arch", [pytest.param("80", marks=pytest.mark.slow), "90a", pytest.param("100a", marks=pytest.mark.slow)]
)
def test_cuda_machine_code(arch, tmp_path):
    found = machine_code.nvcc_resources(machine_code.ROOT / "csrc" / "cuda" / "sigmoid_bce.cu", arch, tmp_path)
    assert len(found) == 10  # three kernels in three dtypes, and the sum of the blocks
    for name, registers, spilled in found:
        assert spilled == 0, name
        assert registers <= 64, name  # 256 threads: four blocks a multiprocessor at least
    text = machine_code.sass((tmp_path / "out.cubin").read_bytes(), tmp_path)
    assert machine_code.global_loads(text)[128] >= 18  # both sides of the nine, unrolled or not
