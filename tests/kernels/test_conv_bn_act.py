"""The kernels of conv_bn_act without a GPU: Triton's interpreter beside the reference in fp64, and machine code."""

import pytest
import torch

pytest.importorskip("triton")


def test_any_layer_in_the_interpreter(interpret):
    """Kernels 1 to 5, strides 1 to 3, any padding and output padding, odd sizes, tiles of all sizes."""
    interpret("conv_bn_act", "any_layer", 0)


def test_layers_of_gans_in_the_interpreter(interpret):
    """First and last layers; addresses in 64 bits."""
    interpret("conv_bn_act", "layers_of_gans")


def test_moments_and_tangent_in_the_interpreter(interpret):
    interpret("conv_bn_act", "moments_far_from_zero")
    interpret("conv_bn_act", "tangent")


def test_configurations_are_few_and_fit_the_problem():
    from ganfast.kernels import conv_bn_act as kernels

    for m, n, k, item in ((131072, 256, 128, 2), (512, 512, 100, 2), (128, 1, 512, 2), (2**22, 3, 64, 4), (1, 1, 1, 4)):
        for exact in (False, True)[: item // 2]:
            found = kernels.configurations(m, n, k, item, exact)
            assert 1 <= len(found) <= 4 and len(set(found)) == len(found)
            for bm, bn, bk, warps, stages in found:
                assert all(v >= 16 and v & (v - 1) == 0 for v in (bm, bn, bk)), found
                assert bn < max(2 * n, 32) and bk < max(2 * k, 32)
                assert warps in (4, 8) and stages in (3, 4)
    assert kernels.configurations(131072, 256, 128, 2)[0] == (128, 128, 64, 8, 3)
    assert kernels.configurations(128, 1, 512, 2)[0][0] == 16  # few rows: small tiles


ARCHS = [pytest.param("80", marks=pytest.mark.chips), "90", pytest.param("100", marks=pytest.mark.chips)]
TENSOR = {"80": "HMMA", "90": "HGMMA", "100": "UTCHMMA"}


@pytest.mark.parametrize("arch", ARCHS)
def test_tensor_cores_are_fed_asynchronously(arch):
    """A critic's layer, fp16: every load of the forward's loop is a copy of 16 bytes to shared memory."""
    launches, machine_code = pytest.importorskip("launches"), pytest.importorskip("machine_code")
    declaration = launches.declared()["conv_bn_act"]
    for launch in launches.triton_launches(declaration, torch.float16):
        if launch.name not in ("forward_kernel", "backward_data_kernel", "backward_weight_kernel"):
            continue
        try:
            ((function,),) = machine_code.read([machine_code.triton_cubin(launch, arch)[0]], arch)
        except machine_code.ToolMissing as reason:
            pytest.skip(str(reason))
        path = machine_code.main_path(function, lambda i: int(i.opcode.startswith(TENSOR[arch])))
        assert path.loop, launch.name
        assert any(i.opcode.startswith(TENSOR[arch]) for i in path.code), launch.name
        loads = {(i.kind, i.width) for i in path.code if i.kind in ("LDG", "LDGSTS")}
        assert loads == {("LDGSTS", 128)}, (launch.name, loads)


@pytest.mark.parametrize("arch", ARCHS)
def test_resources_stay_in_budget(arch, gate_rows):
    rows = [row for row in gate_rows("conv_bn_act", arch) if "PRECISION=" in row["configuration"]]
    assert len(rows) >= 20
    for row in rows:
        assert row["registers"] < 255 and row["shared"] <= 160 * 1024, row
        assert ("PRECISION=ieee" in row["configuration"]) != ("TENSOR" in row["mix"]), row
        if "FLAT=False" in row["configuration"] and row["dtype"] != "fp32":
            assert row["loads"].get(128), row
