"""A pytest plugin: runs tests of tests/ops on the emulated CUDA half of the extension that CUDA_ON_CPU names.

    CUDA_ON_CPU=LIBRARY python -m pytest -p cuda_on_cpu.plugin tests/ops/test_sigmoid_bce.py

Every launch gets its arrays between guard pages, at their end and at their beginning in turns. Tests run in the first
order of execution; those that are about values, and quick, in two others as well. One in twenty random arguments is
tried. A fault of a kernel fails the test that has launched it.
"""

import ctypes
import importlib
import importlib.machinery
import importlib.util
import itertools
import os

import pytest
from hypothesis import settings

ORDERS = {  # whether a warp runs as far as it gets without the others, and forward, reversed (1) or shuffled (2)
    "warps reversed": (True, 1),
    "warps": (True, 0),
    "threads shuffled": (False, 2),
    "threads": (False, 0),
}
# these run in the first order only: they are about the frame around the kernels, or they are many launches
ONCE = (
    "opcheck",
    "compiled",
    "autocast",
    "transforms",
    "derivative",
    "random",
    "loss_scale",
    "uniform",
    "half_value",
    "more_blocks",
)
ABSENT = {
    "test_addresses_on_the_cpu_have_64_bits": "2.4e9 elements are too many for an emulator",
    "test_the_compiled_half_is_what_is_tested_here": "it is about the CPU half",
    "test_the_table_says_which_backends_there_are": "it is about the real table",
    "test_compiled_equals_eager": "a minute of compilation, of what opcheck tests as well",
    "test_random_invalid_arguments_name_the_argument": "no kernel runs",
    "test_random_invalid_argument_sets_are_refused": "no kernel runs",
}


def load(path: str):
    """ganfast._C of this file."""
    loader = importlib.machinery.ExtensionFileLoader("ganfast._C", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("ganfast._C", loader, origin=path))
    loader.exec_module(module)
    return module


def install(module) -> None:
    """Makes `module`'s CUDA half the only fast backend of tensors on the CPU: all hooks into ganfast are here."""
    from ganfast.ops import _backends, _extension, _registry

    sides = itertools.cycle((True, False))

    def on_stream(device, function, pattern, places, tensors):
        args = pattern.copy()
        for place, source in places:
            args[place] = tensors[source]
        guard.call(function, *args, 0, at_end=next(sides))

    def available(name, device):
        return True if name in ("cuda", "reference") else "left out: the emulated CUDA half runs"

    guard = importlib.import_module("cuda_on_cpu.guard")
    _extension._load = lambda: (module, None)
    _backends.available = available
    _backends.on_stream = on_stream
    _backends.DEVICES.update(cuda="cpu", cpu="none", triton="none")
    for op in _registry.OPS.values():
        op._ready_on.clear(), op._plans.clear()


class Emulator:
    """The functions that emulator.cpp exports."""

    def __init__(self, path: str):
        self.library = ctypes.CDLL(path)
        self.library.emulator_launched.restype = ctypes.c_char_p

    def set_order(self, name: str) -> None:
        self.library.emulator_set_order(*ORDERS[name])

    def launched(self) -> list[str]:
        return self.library.emulator_launched().decode().split("\n")[:-1]


def pytest_configure(config):
    path = os.environ["CUDA_ON_CPU"]
    install(load(path))
    config.emulator = Emulator(path)


def pytest_generate_tests(metafunc):
    once = any(part in metafunc.function.__name__ for part in ONCE)
    metafunc.fixturenames.append("order")
    metafunc.parametrize("order", list(ORDERS)[: 1 if once else 3])


def pytest_collection_modifyitems(config, items):
    gone = [item for item in items if item.originalname in ABSENT]
    gone += [item for item in items if item.originalname == "test_opcheck"][1:]  # about the frame
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item not in gone]
    for function in {item.function for item in items if hasattr(item.function, "hypothesis")}:
        asked = function._hypothesis_internal_use_settings
        function._hypothesis_internal_use_settings = settings(asked, max_examples=asked.max_examples // 20)


def pytest_runtest_setup(item):
    item.config.emulator.set_order(item.callspec.params["order"])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    for place in config.emulator.launched():
        terminalreporter.write_line(f"launched: {place}")
