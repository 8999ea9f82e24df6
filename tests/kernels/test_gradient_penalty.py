"""The kernels of gradient_penalty without a GPU: Triton's interpreter, and the machine code of both compilers."""

import subprocess
import sys
import textwrap

import machine_code
import pytest

PHIS = "(7.0, 1.0, False), (7.0, 1.0, True), (3.5, 0.0, False)"


def interpret(code):
    """Runs code under Triton's interpreter; `op` is the operator's module, close() compares sample by sample."""
    head = """
        import os; os.environ["TRITON_INTERPRET"] = "1"
        import torch
        from ganfast.kernels import gradient_penalty as kernels
        from ganfast.ops import gradient_penalty as op
        torch.manual_seed(0)
        def close(got, wanted, slack, bound, where):
            error = (got.double() - wanted).reshape(len(slack), -1).norm(dim=1)
            limit = slack + bound * wanted.reshape(len(slack), -1).norm(dim=1) + 2**-24 * (got[:1].numel() ** 0.5)
            assert bool((error <= limit).all()), (where, error, limit)
    """
    code = textwrap.dedent(head) + textwrap.dedent(code) + '\nprint("ok")\n'
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "ok", run.stderr


@pytest.mark.parametrize("hold", [16384, 64])  # 64: samples that one program cannot hold; chunks of two blocks
def test_triton_kernels_in_the_interpreter(hold):
    pytest.importorskip("triton")
    interpret(f"""
        kernels.HOLD = {hold}
        if {hold} == 64:
            kernels.BLOCK, kernels.MAX_CHUNKS = 128, 4
        for dtype, bound in ((torch.float32, 1e-6), (torch.float16, 2**-11 + 1e-6)):
            for shape in ((1, 1), (7,), (5, 3, 7), (2, 129), (3, 1001), (4, 0), (0, 3)):
                g, c = torch.randn(shape), torch.randn(shape)
                lengths = g.reshape(shape[0], g[:1].numel()).norm(dim=1).reshape(-1, *[1] * (len(shape) - 1))
                g = (g / lengths * (0.2 + 2 * torch.rand(shape[0])).reshape(lengths.shape)).to(dtype)
                g[:1] = 0
                c, c_norms, c_penalty = c.to(dtype), torch.randn(shape[0]), torch.tensor(1.5)
                n = g.double().reshape(shape[0], g[:1].numel()).norm(dim=1)
                w = c.double().reshape(shape[0], g[:1].numel()).norm(dim=1)
                for phi in ({PHIS}):
                    where = (dtype, shape, phi)
                    penalty, norms, seed = op._triton_forward(g, *phi, True)
                    first = op._triton_backward(c_penalty, c_norms, g, norms, *phi)
                    only = op._triton_backward(None, c_norms, g, norms, *phi)
                    second = op._triton_double(c, c_penalty, c_norms, g, norms, *phi)
                    p, n64, v = op._reference(g.double(), *phi)
                    cotangents = c_penalty.double(), c_norms.double(), g.double(), n64
                    if shape[0] == 0:
                        assert penalty.isnan() and float(second[0]) == 0 and first.shape == shape
                        continue
                    scale, off = 2 * phi[0] / shape[0], 2e-6 * n
                    assert bool(((norms - n).abs() <= off).all()), where
                    assert abs(float(penalty - p)) <= 1e-6 * float(p) + float((scale * (n + 1) * off).sum()), where
                    close(seed, v, scale * off, bound, where)
                    close(first, op._reference_backward(*cotangents, *phi), 2 * scale * off + 1e-5, bound, where)
                    close(only, op._reference_backward(None, *cotangents[1:], *phi), off + 1e-5, bound, where)
                    dp, dn, dg = op._reference_double(c.double(), *cotangents, *phi)
                    assert abs(float(second[0] - dp)) <= 1e-5 * float((scale * (n + 1) * w).sum()), where
                    assert bool(((second[1] - dn).abs() <= 4e-6 * w).all()), where
                    inverse = torch.where(n > 0, 1 / n, 0)
                    slack = 1e-5 * (scale * (1 + inverse) + c_norms.abs() * inverse) * w
                    close(second[2], dg, slack, bound, where)
                    again = op._triton_forward(g, *phi, False)
                    assert torch.equal(again[0], penalty) and torch.equal(again[1], norms) and again[2].shape == (0,)
    """)


def test_triton_sums_out_of_range_in_the_interpreter():
    pytest.importorskip("triton")
    interpret("""
        for hold, block in ((16384, 4096), (64, 128)):
            kernels.HOLD, kernels.BLOCK = hold, block
            for size in (1e-30, 1e30):
                g = size * torch.randn(3, 300)
                n = g.double().norm(dim=1)
                _, norms, seed = op._triton_forward(g, 10.0, 1.0, False, True)
                assert bool(((norms - n).abs() <= 2e-6 * n).all()), (hold, size)
                wanted = 20 / 3 * ((n - 1) / n)[:, None] * g.double()
                close(seed, wanted, 2e-6 * wanted.norm(dim=1), 1e-6, (hold, size))
            g = torch.randn(3, 300)
            g[1, 7] = float("nan")
            g[2, 8] = float("inf")
            penalty, norms, _ = op._triton_forward(g, 10.0, 1.0, False, True)
            assert norms.isnan().tolist() == [False, True, False] and float(norms[2]) == float("inf")
            assert penalty.isnan()
    """)


POINTERS = {"g": "", "c": "", "seed": "", "out": "", "dg": "", "partial": "*fp64"}
FLAGS = {"ONE_SIDED": True, "HAS_PENALTY": True, "HAS_NORMS": True}
# kernel: its constants, then its wide loads in units of one pass over its tile
KERNELS = {
    "whole_kernel": ({"ONE_SIDED": False, "HAS_SEED": True}, 1),
    "squares_kernel": ({}, 1),
    "scale_kernel": ({**FLAGS, "SEED": False, "HAS_OUT": True}, 1),
    "whole_double_kernel": (FLAGS, 2),
    "products_kernel": ({}, 2),
    "mix_kernel": (FLAGS, 2),
    "finish_kernel": ({"ONE_SIDED": True, "DERIVATIVE": True}, 0),
}


def machine_code_of(kernel, dtype, arch, tmp_path, divisible=(), **changed):
    """The text, and how many 16-byte loads a thread needs for the kernel's tensors; `changed` are other constants."""
    kernels = pytest.importorskip("ganfast.kernels.gradient_penalty", reason="triton is not installed")
    function = getattr(kernels, kernel)
    constants, passes = KERNELS[kernel]
    held = kernels._held(kernels.HOLD)
    block, warps = (held["BLOCK"], held["num_warps"]) if kernel.startswith("whole") else (kernels.BLOCK, 8)
    known = {"BLOCK": block, "MAX_CHUNKS": kernels.MAX_CHUNKS, "FINISH": kernels.FINISH}
    constants = constants | {name: value for name, value in (known | changed).items() if name in function.arg_names}
    numbers = {"size": "i32", "chunks": "i32", "steps": "i32", "batch": "i32"}
    numbers |= {"scale": "fp32", "target": "fp32", "empty": "fp32"}
    pointers = {name: kind or f"*{dtype}" for name, kind in POINTERS.items()}
    signature = {name: numbers.get(name) or pointers.get(name, "*fp32") for name in function.arg_names}
    compiled = machine_code.triton_compile(
        function, signature, constants, arch, num_warps=warps if passes else 4, divisible=divisible
    )
    each = block // (32 * warps)  # elements a thread
    wide = passes * each * (4 if dtype == "fp32" else 2) // 16
    return machine_code.sass(compiled.asm["cubin"], tmp_path), wide


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_triton_machine_code(kernel, dtype, arch, tmp_path):
    text, wide = machine_code_of(kernel, dtype, arch, tmp_path, divisible=("size",))
    assert "LDL" not in text and "STL" not in text  # nothing spilled
    assert machine_code.global_loads(text)[128] >= wide
    assert machine_code.global_loads(text)[16] == 0


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "finish_kernel"])
def test_triton_machine_code_of_odd_sizes(kernel, dtype, tmp_path):
    text, _ = machine_code_of(kernel, dtype, 90, tmp_path)
    assert "LDL" not in text and "STL" not in text  # element by element, and still nothing spilled


@pytest.mark.parametrize("kernel", KERNELS)
def test_triton_variants(kernel, tmp_path):
    """Absent tensors, other kinds, and numbers equal to 1, which a launch takes as constants."""
    pytest.importorskip("triton")
    flags = ("ONE_SIDED", "HAS_PENALTY", "HAS_NORMS", "HAS_SEED", "HAS_OUT", "DERIVATIVE")
    ones = dict.fromkeys(("size", "chunks", "steps", "batch"), 1)
    for changed in (dict.fromkeys(flags, False), {"SEED": True}, {"SEED": True, "HAS_OUT": False}, ones):
        text, _ = machine_code_of(kernel, "bf16", 90, tmp_path, **changed)
        assert "EXIT" in text and "LDL" not in text and "STL" not in text


@pytest.mark.parametrize(
    "arch", [pytest.param("80", marks=pytest.mark.slow), "90a", pytest.param("100a", marks=pytest.mark.slow)]
)
def test_cuda_machine_code(arch, tmp_path):
    found = machine_code.nvcc_resources(machine_code.ROOT / "csrc" / "cuda" / "gradient_penalty.cu", arch, tmp_path)
    assert len(found) == 25  # four kernels in three dtypes, with packs and without, and the sum of the batch
    for name, registers, spilled in found:
        assert spilled == 0, name
        assert registers <= 128, name  # 512 threads: a block a multiprocessor at least
        if "Lb1E" in name and "double" not in name:
            assert registers <= 64, name  # with packs: two
    text = machine_code.sass((tmp_path / "out.cubin").read_bytes(), tmp_path)
    assert "LDL" not in text and "STL" not in text
    # whole, squares, scale and twice double of two tensors: 32 elements a thread
    assert machine_code.global_loads(text)[128] >= (3 + 2 * 2) * (8 + 4 + 4)
