"""Every kernel passes the kernel gate (tools/gate.py): declared, without spills, without narrow loads or stores."""

import importlib
import itertools

import pytest

triton = pytest.importorskip("triton")

import gate  # noqa: E402
import launches  # noqa: E402
import machine_code  # noqa: E402
import torch  # noqa: E402

DECLARED = launches.declared()
ARCHS = [pytest.param("80", marks=pytest.mark.chips), "90", pytest.param("100", marks=pytest.mark.chips)]


def kernels_of(file) -> set:
    module = importlib.import_module(f"ganfast.kernels.{file}")
    return {name for name, it in vars(module).items() if isinstance(it, triton.JITFunction) and name[0] != "_"}


def test_every_kernel_is_declared_and_launched():
    from ganfast.ops._registry import OPS

    files = {file.stem for file in (machine_code.ROOT / "kernels").glob("[!_]*.py")} - {"tuned"}
    files |= {file.stem for file in (machine_code.ROOT / "csrc" / "cuda").glob("*.cu")} - {"device"}
    assert files == set(DECLARED), "tools/launches/ has a file for each operator that has kernels"
    called, everything = set(), set()
    for op, declaration in DECLARED.items():
        for sizes, kind in itertools.product(declaration.SIZES, (torch.float32, torch.float16)):
            meta = lambda *shape, dtype=kind: torch.empty(shape, dtype=dtype, device="meta")  # noqa: E731
            called |= {name for name, _ in declaration.calls(meta, *sizes)}
        launched = {launch.name for launch in launches.triton_launches(declaration, torch.float32)}
        assert kernels_of(op) <= launched, f"{op}: launches in tools/launches/{op}.py"
        everything |= launched
    shared = {name for name in kernels_of("_statistics") if name.endswith("_kernel")}  # the rest are parts of others
    assert shared <= everything
    with_triton = {name for name, op in OPS.items() if any(b.name == "triton" for b in op.backends)}
    assert called == with_triton, "every Op with a Triton backend is called in tools/launches/"


def assert_no_faults(rows):
    assert rows
    assert [(row["kernel"], row["configuration"], row["dtype"], fault) for row in rows for fault in row["faults"]] == []


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("op", DECLARED)
def test_triton_kernels_have_no_faults(op, arch, gate_rows):
    assert_no_faults(gate_rows(op, arch))


@pytest.mark.chips
@pytest.mark.parametrize("op", DECLARED)
def test_triton_kernels_have_no_faults_under_triton_3_6(op, side):
    rows = gate.side_rows(side, [op], ["80", "90", "100"])
    assert all(row["compiler"].startswith("triton 3.6.") for row in rows)
    assert_no_faults(rows)


@pytest.mark.parametrize("arch", ARCHS[:2])
@pytest.mark.parametrize("op", [op for op in DECLARED if (machine_code.ROOT / "csrc" / "cuda" / f"{op}.cu").exists()])
def test_cuda_kernels_have_no_faults(op, arch, gate_rows):
    assert_no_faults(gate_rows(op, arch, "cuda"))
