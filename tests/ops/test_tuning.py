"""The measured choice, with made-up candidates on the CPU: what is timed, remembered, and survived."""

import functools
import json
import multiprocessing
import threading
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ganfast.ops import Backend, Op, _backends, _registry, _tuning
from ganfast.ops._tuning import choose, key_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_tuning, "_known", {})
    _tuning._tell.cache_clear()
    return tmp_path / "cache" / "tuning.json"


def forget():
    """As a new process: only the file is left."""
    _tuning._known.clear()


class Candidates(dict):
    """Functions that sleep for so many milliseconds and count their calls."""

    def __init__(self, **milliseconds):
        self.calls = dict.fromkeys(milliseconds, 0)

        def make(name, duration):
            def run():
                self.calls[name] += 1
                if duration is None:
                    raise RuntimeError("out of shared memory\nand more")
                time.sleep(duration / 1e3)

            return run

        super().__init__({name: make(name, duration) for name, duration in milliseconds.items()})


def test_nothing_is_measured_while_a_mode_sees_every_operator(cache):
    candidates = Candidates(slow=3, quick=0)
    with FlopCounterMode(display=False):
        assert choose(("op", 1), candidates, CPU) == "slow"
    assert candidates.calls == {"slow": 0, "quick": 0} and not cache.exists()
    assert choose(("op", 1), candidates, CPU) == "quick"


def test_one_candidate_is_not_measured(cache):
    only = Candidates(best=None)
    assert choose(("op", 1), only, CPU) == "best" and only.calls == {"best": 0} and not cache.exists()


def test_the_fastest_is_chosen_and_measured_once(cache):
    candidates = Candidates(vendor=40, small=2, large=20)  # far apart, for a machine with other work
    assert [choose(("op", 1), candidates, CPU) for _ in range(3)] == ["small"] * 3
    wanted = {"vendor": 2, "small": _tuning.REPEATS + 1, "large": 2}  # what lost by far is not timed again
    assert candidates.calls == wanted
    forget()
    assert choose(("op", 1), candidates, CPU) == "small"
    assert candidates.calls == wanted
    assert choose(("op", 2), Candidates(vendor=0, small=3), CPU) == "vendor"
    (rows,) = json.loads(cache.read_text()).values()
    assert [row["choice"] for row in rows.values()] == ["small", "vendor"]
    assert 1800 < rows["('op', 1)"]["microseconds"]["small"] < rows["('op', 1)"]["microseconds"]["vendor"]


def test_another_version_or_device_measures_anew(monkeypatch):
    candidates = Candidates(vendor=0, small=2)
    choose(("op",), candidates, CPU)
    monkeypatch.setattr(_tuning, "environment", lambda device: "another GPU")
    before = candidates.calls["small"]
    choose(("op",), candidates, CPU)
    assert candidates.calls["small"] > before
    assert {row[0] for row in _tuning.table()} > {"another GPU"}


def test_keys_tell_shapes_dtypes_layouts_and_values_apart():
    x = torch.randn(2, 3, 4, 4)
    others = x[:1], x.half(), x.to(memory_format=torch.channels_last), None
    keys = [key_of("op", (t, [1, 2], "relu")) for t in (x, *others)]
    keys += [key_of("op", (x, [2, 1], "relu")), key_of("op", (x, [1, 2], None)), key_of("po", (x, [1, 2], "relu"))]
    assert len(set(keys)) == len(set(map(str, keys))) == 8
    assert keys[0] == key_of("op", (x + 1, [1, 2], "relu"))


def test_a_candidate_that_fails_loses_and_is_written_down():
    assert choose(("op",), Candidates(vendor=3, small=None), CPU) == "vendor"
    ((_, _, _, microseconds, failed),) = _tuning.table()
    assert failed == {"small": "RuntimeError: out of shared memory"}
    assert list(microseconds) == ["vendor"]
    with pytest.raises(RuntimeError, match="out of shared memory"):
        choose(("other",), Candidates(vendor=None, small=1), CPU)


def test_nothing_is_measured_while_a_graph_is_captured_or_traced(monkeypatch, cache):
    candidates = Candidates(vendor=5, small=0)
    monkeypatch.setattr(_tuning, "not_now", lambda device: True)
    assert choose(("op",), candidates, CPU) == "vendor"
    assert not any(candidates.calls.values())
    assert not cache.exists()
    monkeypatch.undo()
    monkeypatch.setenv("GANFAST_CACHE", str(cache.parent))
    assert choose(("op",), candidates, CPU) == "small"
    forget()
    monkeypatch.setattr(_tuning, "not_now", lambda device: True)
    assert choose(("op",), Candidates(vendor=5, small=0), CPU) == "small"  # from the file


def test_deterministic_algorithms_do_not_hang_on_what_was_measured(cache):
    """The order of sums is the first candidate's, on every machine and after every other run."""
    candidates = Candidates(vendor=5, small=0)
    assert choose(("op",), candidates, CPU) == "small"  # warnings alone, as the other tests have them, change nothing
    torch.use_deterministic_algorithms(True)
    try:
        for key in (("op",), ("another",)):
            assert choose(key, candidates, CPU) == "vendor"
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
    assert choose(("op",), candidates, CPU) == "small" and "another" not in cache.read_text()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"cpu": 3}', '{"cpu": {"k": {"choice": "x"}}}', '{"a": {"k": {"choice": [], "m": 1}}}']
)
def test_a_damaged_file_is_told_of_and_replaced(cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    with pytest.warns(UserWarning, match=r"tuning.json cannot be read \(.*measured anew"):
        assert choose(("op",), Candidates(vendor=2, small=0), CPU) == "small"
    assert [row[2] for row in _tuning.table()] == ["small"]


def test_a_candidate_of_the_file_that_is_gone_is_measured_anew():
    choose(("op",), Candidates(vendor=2, small=0), CPU)
    forget()
    assert choose(("op",), Candidates(vendor=2, large=0), CPU) == "large"


def test_a_place_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path / "file"))
    candidates = Candidates(vendor=2, small=0)
    with pytest.warns(UserWarning, match="cannot be (read|written).*"):
        assert choose(("op",), candidates, CPU) == "small"
    assert choose(("op",), candidates, CPU) == "small"
    assert candidates.calls == {"vendor": 2, "small": _tuning.REPEATS + 1}


def test_threads_and_processes_side_by_side_leave_a_whole_file(cache):
    def work(first):
        for i in range(first, first + 5):
            choose(("op", i), {"vendor": lambda: None, "small": lambda: None}, CPU)

    threads = [threading.Thread(target=work, args=(5 * i,)) for i in range(4)]
    processes = [multiprocessing.get_context("fork").Process(target=work, args=(100 + 5 * i,)) for i in range(3)]
    for each in (*processes, *threads):
        each.start()
    for each in (*processes, *threads):
        each.join()
    assert all(process.exitcode == 0 for process in processes)
    assert len(_tuning.table()) >= 5
    assert [p.name for p in cache.parent.iterdir()] == ["tuning.json"]


@pytest.fixture(scope="module")
def doubled():
    """An operator with a backend that is slower or faster than the reference, as `speed` says."""
    speed, ran = {"reference": 0, "cpu": 0}, []

    def way(name, x):
        time.sleep(speed[name] / 1e3)
        ran.append(name)
        return x * 2

    backend = Backend("cpu", functools.partial(way, "cpu"), lambda x: True, measured=True)
    op = Op(
        "toy_doubled(Tensor x) -> Tensor",
        check=lambda x: None,
        fake=torch.empty_like,
        reference=functools.partial(way, "reference"),
        backends=[backend],
        backward="a toy",
    )
    op._ready_on[CPU] = [backend]  # with or without the extension
    yield op, speed, ran
    del _registry.OPS["toy_doubled"]


@pytest.mark.parametrize("faster", ["reference", "cpu"])
def test_an_operator_runs_the_faster_of_backend_and_reference(doubled, faster):
    op, speed, ran = doubled
    speed.update({name: 0 if name == faster else 4 for name in speed})
    forget()
    x = torch.randn(3)
    with _registry.use_backend(None):
        assert torch.equal(op(x), 2 * x)
        ran.clear()
        assert torch.equal(op(x), 2 * x)
    assert ran == [faster]
    with _registry.use_backend("reference"):
        op(x)
    assert ran[-1] == "reference"


def test_what_failed_for_want_of_memory_is_tried_again():
    def wants_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    slow = Candidates(vendor=3)
    assert choose(("op",), {**slow, "small": wants_memory}, CPU) == "vendor"
    assert not _tuning.table()
    assert choose(("op",), {**slow, "small": lambda: None}, CPU) == "small"


def test_the_hosts_time_is_a_choice_of_its_own():
    assert choose(("op",), Candidates(vendor=3, small=0), CPU) == "small"
    assert choose(("op",), Candidates(vendor=0, small=3), CPU, by_host=True) == "vendor"
    assert choose(("op",), Candidates(vendor=9, small=9), CPU) == "small"


class Device:
    """A GPU's clock: calls take 50 µs of it, the host 300 µs, after a wait of so many cycles at 2 GHz."""

    def __init__(self, monkeypatch):
        self.now = self.host = 0.0
        self.waits = []
        device = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = max(device.now, device.host)
                device.now = self.at

            def query(self):
                return device.host >= self.at

            def synchronize(self):
                device.host = max(device.host, device.now)

            def elapsed_time(self, other):
                return (other.at - self.at) / 1e3  # ms

        def sleep(cycles):
            device.waits.append(cycles)
            device.now = max(device.now, device.host) + cycles / 2e3

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "_sleep", sleep)

    def call(self):
        self.host += 300
        self.now = max(self.now, self.host) + 50


def test_the_devices_time_has_none_of_the_hosts(monkeypatch):
    device = Device(monkeypatch)
    assert _tuning._time_of_device(device.call) == pytest.approx(50e-6)
    assert len(device.waits) > 1  # the first wait was too short for ten calls of the host's
    waited = Device(monkeypatch)

    def waits_for_the_device():
        waited.call()
        waited.host = waited.now

    assert _tuning._time_of_device(waits_for_the_device) > 300e-6  # and it ends


def test_exact_products_are_the_vendors(monkeypatch):
    """The kernels' exact fp32 has no tensor cores: nothing is measured against the vendor's convolution."""
    from ganfast.ops.conv_bn_act import conv_act

    measured = []
    backend = Backend("triton", lambda *args: measured.append("ran"), lambda *args: True, conv_act.backends[0].measured)
    monkeypatch.setattr(_backends.Backend, "device", property(lambda self: "cpu"))
    monkeypatch.setattr(conv_act, "_ready_on", {CPU: [backend]})
    monkeypatch.setattr(conv_act, "_plans", {})
    monkeypatch.setattr(_tuning, "choose", lambda key, ways, device, by_host=False: measured.append(key) or "reference")
    geometry = False, (1, 1), (0, 0), (0, 0), 0.0, None, 0.0, None, 0.0
    x, w = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    before = torch.backends.cudnn.conv.fp32_precision
    with _registry.use_backend(None):
        try:
            for precision in ("ieee", "tf32"):
                torch.backends.cudnn.conv.fp32_precision = precision
                conv_act(x, None, None, None, w, None, *geometry)
                assert len(measured) == (precision == "tf32")
        finally:
            torch.backends.cudnn.conv.fp32_precision = before
        conv_act(x.bfloat16(), None, None, None, w.bfloat16(), None, *geometry)
    assert len(measured) == 2
