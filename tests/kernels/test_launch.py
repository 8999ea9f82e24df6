"""launch(kernel, grid, …): Triton's own call once for what it specialises alike, the compiled kernel afterwards."""

import pytest

pytest.importorskip("triton")

import host
import launches
import torch
import triton
import triton.language as tl
from ganfast.kernels import _launch
from ganfast.kernels._launch import cdiv, launch, power_of_2
from triton import knobs


@triton.jit
def scale_kernel(x, y, factor, size, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, factor * tl.load(x + i, mask=i < size), mask=i < size)


@pytest.fixture
def calls(monkeypatch):
    """What ran: (grid, arguments) of each launch of a compiled kernel; and what was compiled."""
    ran, compiled = [], []

    def run(x, y, z, stream, function, packed, metadata, enter, leave, *args):
        ran.append(((x, y, z), args))

    def compile_(kernel, key, *rest):
        compiled.append(key)
        return host._compiled(kernel, key, *rest)

    with host.stubbed():
        monkeypatch.setattr(host._Kernel, "run", staticmethod(run))
        monkeypatch.setattr(triton.runtime.jit.JITFunction, "_do_compile", compile_)
        scale_kernel.device_caches.clear()
        yield ran, compiled
        scale_kernel.device_caches.clear()


def scale(x, size=64, factor=2.0, block=32):
    launch(scale_kernel, (cdiv(size, block),), x, x, factor, size, BLOCK=block, num_warps=1)


def test_arguments_are_those_of_tritons_own_call(calls):
    ran, compiled = calls
    x = torch.randn(64)
    for factor in (2.0, 3.0, 3.0):
        scale(x, factor=factor)
    assert len(compiled) == 1
    for (grid, args), factor in zip(ran, (2.0, 3.0, 3.0), strict=True):
        assert grid == (2, 1, 1)
        assert args[0] is x and args[1] is x and args[2:] == (factor, 64, 32)


def test_what_triton_specialises_by_is_told_apart(calls):
    ran, compiled = calls
    x = torch.randn(80)
    variants = [
        {"x": x}, {"x": x[1:]}, {"x": x.double()}, {"x": x, "size": 1}, {"x": x, "size": 50}, {"x": x, "block": 64},
    ]  # fmt: skip
    for _ in range(2):
        for variant in variants:
            scale(**variant)
    assert len(compiled) == len(variants)
    assert len(ran) == 2 * len(variants)


def test_fusion_does_not_depend_on_tritons_default():
    x = torch.empty(64, device="meta")
    for given in ({}, {"enable_fp_fusion": False}):
        (made,) = launches.record(lambda: launch(scale_kernel, (2,), x, x, 2.0, 64, BLOCK=32, **given))  # noqa: B023
        assert dict(made.options) == {"enable_fp_fusion": True, **given}


def test_a_profilers_hooks_see_every_launch(calls, monkeypatch):
    seen = []
    x = torch.randn(64)
    scale(x)
    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", lambda kernel, *args, **kwargs: seen.append(kernel))
    scale(x)
    assert not seen
    hook = lambda metadata: None  # noqa: E731
    knobs.runtime.launch_enter_hook.add(hook)
    try:
        scale(x)
    finally:
        knobs.runtime.launch_enter_hook.remove(hook)
    assert seen == [scale_kernel]


def test_keys_are_bounded(calls, monkeypatch):
    monkeypatch.setattr(_launch, "MOST", 4)
    for size in range(2, 20):
        scale(torch.randn(64), size=size)
    assert len(_launch._compiled) <= 4


def test_sizes():
    for n in range(1, 300):
        assert power_of_2(n) == triton.next_power_of_2(n)
        assert cdiv(n, 7) == triton.cdiv(n, 7)
    assert power_of_2(0) == power_of_2(-3) == 1
