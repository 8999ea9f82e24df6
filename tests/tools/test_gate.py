"""The kernel gate and the machine code reader: what they report, and which faults they find."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

triton = pytest.importorskip("triton")

import chips  # noqa: E402
import gate  # noqa: E402
import launches  # noqa: E402
import machine_code  # noqa: E402
import torch  # noqa: E402
import triton.language as tl  # noqa: E402


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_and_writes_json(tmp_path):
    command = [
        sys.executable,
        gate.__file__,
        "sigmoid_bce",
        "--archs",
        "90",
        "--no-cuda",
        "--json",
        tmp_path / "k.json",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = json.loads((tmp_path / "k.json").read_text())
    assert len(rows) == 10
    assert run.stdout.count("H200") == 10
    assert "10 rows; " in run.stdout


# --- kernels with faults ----------------------------------------------------------------------------------------------


@triton.jit
def narrow_kernel(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i * 3, mask=i < n).to(tl.float32), mask=i < n)


@triton.jit
def spilling_kernel(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    found = tl.load(x + i).to(tl.float32)
    for _ in range(n):
        found += tl.cumsum(found, 0) * tl.exp(found)
    tl.store(out + i, found)


def row_of(kernel, element, **options):
    """The gate's row of a kernel here, and its faults."""
    x, out = (torch.empty(4, dtype=d, device="meta") for d in (torch.bfloat16, torch.float32))
    (launch,) = launches.record(lambda: kernel[(1,)](x, out, 77, **options))
    cubin, dynamic = machine_code.triton_cubin(launch, "90")
    ((function,),) = machine_code.read([cubin], "90")
    declaration = SimpleNamespace(ELEMENT=element)
    where = {"op": "toy", "kernel": launch.name, "configuration": launch.describe(), "dtype": launch.dtype}
    return gate._row(declaration, function, "90", dynamic, compiler="triton", **where)


def test_a_narrow_load_is_a_fault():
    row = row_of(narrow_kernel, {"narrow_kernel": 1}, BLOCK=512, num_warps=4)
    assert row["loads"] == {16: 4}
    assert row["faults"] == ["4 global loads of less than 4 bytes in the main path"]


def test_a_spill_is_a_fault():
    row = row_of(spilling_kernel, {"spilling_kernel": "MUFU.EX2"}, BLOCK=4096, num_warps=4, maxnreg=32)
    assert row["spills"] > 0 and row["registers"] <= 32
    assert any("accesses to local memory" in fault for fault in row["faults"])
    assert row["loop"]  # the element, one exponential, is found in the loop
    assert row["elements"] == 32 * 4096 / 128


def test_an_undeclared_kernel_and_a_missing_element_are_faults():
    (undeclared,) = row_of(narrow_kernel, {}, BLOCK=512)["faults"]
    assert undeclared == "tools/launches/toy.py does not declare narrow_kernel in ELEMENT"
    faults = row_of(narrow_kernel, {"narrow_kernel": "MUFU.EX2"}, BLOCK=512)["faults"]
    assert "its main path has no element as declared: 'MUFU.EX2'" in faults


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_launch_is_recorded_as_triton_specialises_it():
    x = torch.empty(64, dtype=torch.float16, device="meta")
    (launch,) = launches.record(lambda: narrow_kernel[(1,)](x[8:], x[1:], 1, BLOCK=64, num_warps=2))
    assert dict(launch.signature) == {"x": "*fp16", "out": "*fp16"}
    assert dict(launch.constants) == {"n": 1, "BLOCK": 64}
    assert launch.aligned == ("x",)  # 16 bytes on; out is 2 bytes on
    assert dict(launch.options) == {"num_warps": 2}
    (even,) = launches.record(lambda: narrow_kernel[(1,)](x, x, 4096, BLOCK=64))
    (long,) = launches.record(lambda: narrow_kernel[(1,)](x, x, 2**31 + 1, BLOCK=64))
    assert "n" in even.aligned and even.dtype == "fp16"
    assert dict(long.signature)["n"] == "i64" and "n" not in long.aligned


RESOURCES = """
Resource usage:
 Function toy:
  REG:40 STACK:8 SHARED:1056 LOCAL:0 CONSTANT[0]:592 TEXTURE:0 SURFACE:0 SAMPLER:0
.nv.info.toy
	Attribute:	EIATTR_MAX_THREADS
	Format:	EIFMT_SVAL
	Value:	0x80 0x2 0x1
.nv.info.other
"""
SASS = """
        /*0000*/                   LDG.E R1, desc[UR4][R2.64] ;       /* 0x0 */
        /*0010*/              @!P0 BRA 0xa0 ;                         /* 0x0 */
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64+0x10] ;
        /*0030*/               @P1 BRA 0x60 ;
        /*0040*/                   CALL.REL.NOINC 0x200 ;
        /*0050*/                   BRA 0x80 ;
        /*0060*/                   FFMA R1, R1, R2, R3 ;
        /*0070*/                   MUFU.RCP R5, R6 ;
        /*0080*/                   STL [R1], R5 ;
        /*0090*/               @P2 BRA 0x20 ;
        /*00a0*/                   LDGSTS.E.BYPASS.LTC128B.64 [R3], desc[UR4][R2.64] ;
        /*00b0*/                   STG.E.U16 desc[UR4][R2.64], R5 ;
        /*00c0*/                   EXIT ;
        /*00d0*/                   BRA 0xd0 ;
        /*00e0*/                   ATOMS.OR RZ, [UR7+0x14], R3 ;
        /*00f0*/                   ATOMS.ADD RZ, [UR7+0x14], R3 ;
"""


def test_machine_code_is_read():
    (function,) = machine_code.resources(RESOURCES).values()
    function.code = machine_code.disassembly(SASS)
    assert (function.registers, function.stack, function.shared, function.threads) == (40, 8, 1056, 256)
    assert function.spills == 1
    assert function.atomics == 1  # the sum
    path = machine_code.main_path(function, gate._counts(1))
    assert path.loop
    assert [i.address for i in path.code] == [0x20, 0x30, 0x60, 0x70, 0x80, 0x90]  # not the call
    assert path.widths("LDG") == {128: 1}
    assert machine_code.mix(path.code) == {"FP32": 1, "MUFU": 1, "LDG": 1, "BRANCH": 2, "OTHER": 1}
    whole = machine_code.main_path(function, gate._counts("HGMMA"))
    assert not whole.loop
    assert whole.widths("LDG", "LDGSTS") == {32: 1, 128: 1, 64: 1}
    assert whole.widths("STG") == {16: 1}


def test_resident_blocks_and_bounds():
    h200 = chips.CHIPS["90"]
    assert chips.resident_blocks(h200, 256, 32, 0) == 8  # 64 warps
    assert chips.resident_blocks(h200, 256, 33, 0) == 6  # 40 registers a thread: 51 warps, 48 in quarters
    assert chips.resident_blocks(h200, 256, 255, 0) == 1
    assert chips.resident_blocks(h200, 512, 168, 0) == 0
    assert chips.resident_blocks(h200, 32, 16, 0) == 32
    assert chips.resident_blocks(h200, 128, 32, 100 * 1024) == 2
    assert chips.resident_blocks(chips.CHIPS["80"], 128, 32, 100 * 1024) == 1
    found = chips.cycles(h200, {"FP32": 64, "MUFU": 4, "LDG": 2, "STG": 1}, 16)
    assert found["issue"] == 71 / 4
    assert found["FP32"] == 16 and found["MUFU"] == 8 and found["LSU"] == 3
    assert found["memory"] == pytest.approx(32 * 16 / (4.8e12 / 132 / 1.98e9))
