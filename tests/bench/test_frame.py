"""The benchmarks' frame: floors, ratios, checks and the results file."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import calibrate
import frame
import pytest
import store
import table
import test_steps
import torch
from frame import Work

ROOT = Path(__file__).resolve().parents[2]

CALIBRATION = {"device": "cpu", "copy": 1e10, "matmul": {"fp32": 1e11, "bf16": 4e11}, "launch": {"cpu": 1e-6}}


def row(times, ours=None, work=Work(bytes=1e7, operations=1e6)):  # noqa: B008  frozen
    found = {"place": "cpu", **frame.row_of(times, ours or times, 0.0, work, 0)}
    return frame.with_floor(found, CALIBRATION)


def test_the_floor_is_the_largest_of_three():
    parts = Work(bytes=1e7, operations=2e8, dtype="bf16", launches=3).floor(CALIBRATION, "cpu")
    assert parts == pytest.approx({"bytes": 1e-3, "operations": 5e-4, "launches": 3e-6})
    found = row([2e-3] * 4)
    assert (found["limit"], found["floor"], found["over_floor"]) == ("bytes", pytest.approx(1e-3), pytest.approx(2.0))


def test_a_row_below_its_floor_is_kept_and_marked():
    assert not row([2e-3] * 4)["impossible"]
    for work in (Work(bytes=1e9), Work(operations=1e12)):
        found = row([2e-3] * 4, work=work)
        assert found["impossible"] and found["seconds"] == 2e-3 and found["over_floor"] <= frame.IMPOSSIBLE
    again = frame.with_floor(found, {**CALIBRATION, "matmul": {"fp32": 1e15}})
    assert not again["impossible"]  # the calibration had been disturbed
    with pytest.raises(AssertionError, match="nan s over a floor"):
        row([float("nan")] * 4)


class Timed:
    """What Measure needs of pytest's item, and of pytest-benchmark."""

    place, inner, calls, disabled = "cpu", 1, 1, False

    def __init__(self, bench, name):
        self.path, self.name, self.originalname = Path("bench/test_x.py"), f"test_x[{name}]", "test_x"
        self.callspec = SimpleNamespace(params={"place": "cpu", "row": "ganfast"})
        self.config = SimpleNamespace(stash={bench.CALIBRATED_AGAIN: set()}, getoption=lambda name: None)
        self.extra_info = {}

    def pedantic(self, *args, **kwargs):
        pass


def test_rows_below_their_floor_end_in_the_results_and_are_calibrated_again_once(tmp_path, monkeypatch):
    path = ROOT / "bench" / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest_of_bench", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    calls = []
    monkeypatch.setattr(calibrate, "calibration", lambda device: calls.append(device) or CALIBRATION)
    results, config = store.Results(tmp_path / "results.json"), None
    for i, work in enumerate((Work(bytes=1e15), Work(operations=1e18), Work(launches=1))):
        item = Timed(bench, i)
        item.config = config = config or item.config
        bench.Measure(item, item, results, 0.01)(
            {"ganfast": lambda: (torch.ones(3),)}, tuple, lambda results: None, work
        )
    rows = list(json.loads((tmp_path / "results.json").read_text())["rows"].values())
    assert [r["impossible"] for r in rows] == [True, True, False] and all(r["seconds"] > 0 for r in rows)
    assert calls == ["cpu", "cpu"]


def test_fp32_on_a_gpu_is_bounded_by_what_runs():
    conv, matmul, before = torch.backends.cudnn.conv, torch.backends.cuda.matmul, []
    for kind in (conv, matmul):
        before.append(kind.fp32_precision)
    try:
        for of_conv, of_matmul, wanted in (
            ("tf32", "ieee", "tf32"), ("ieee", "tf32", "tf32"), ("ieee", "ieee", "fp32"), ("none", "none", "fp32"),
        ):  # fmt: skip
            conv.fp32_precision, matmul.fp32_precision = of_conv, of_matmul
            assert frame.running("fp32", "cuda") == frame.running("fp32", "graph") == wanted
            assert (frame.running("fp32", "cpu"), frame.running("bf16", "cuda")) == ("fp32", "bf16")
    finally:
        conv.fp32_precision, matmul.fp32_precision = before
    assert set(calibrate.DTYPES) == {"fp32", "tf32", "bf16", "fp16"}  # a rate is measured for each


@pytest.mark.parametrize("row, precision, wanted", [
    ("eager", "fp32", "tf32"), ("tuned", "fp32", "tf32"), ("ganfast", "bf16", "bf16"), ("eager", "bf16", "tf32"),
])  # fmt: skip
def test_steps_on_a_gpu_are_bounded_by_the_arithmetic_of_their_row(row, precision, wanted):
    """As torch and the benchmark set it: cuDNN's TF32 is on by default."""
    found = []

    def measure(steps, make, check, work):
        found.append(work)

    measure.place, measure.device = "graph", "cuda"
    parts = [(torch.nn.Conv2d(3, 4, 3), torch.empty(2, 3, 8, 8), 3)]
    test_steps.run(measure, None, ["ganfast", row], row, precision, (), parts)
    (work,) = found
    assert work.dtype == wanted and work.operations == 3 * 2 * 2 * 4 * 36 * 27
    assert work.bytes == (2 if wanted == "bf16" else 4) * 3 * (2 * 3 * 64 + 2 * 4 * 36) + 28 * (4 * 27 + 4)


def test_a_ratio_is_the_median_of_neighbours():
    found = row([2e-3, 6e-3, 4e-3, 8e-3], [1e-3, 2e-3, 1e-3, 4e-3])
    assert found["ratio"] == pytest.approx(2.5)
    assert found["ratio_quartiles"] == pytest.approx([2.0, 3.25])
    assert found["seconds"] == pytest.approx(5e-3)


def test_both_are_timed_in_turns(monkeypatch):
    monkeypatch.setattr(frame, "waited", lambda: 0.0)
    order = []

    class Fake:
        inner = calls = 1

        def __init__(self, name):
            self.name = name

        def __call__(self):
            order.append(self.name)
            return 0.01

    a, b, disturbed = frame.in_turns(Fake("a"), Fake("b"), budget=0.1)
    assert len(a) == len(b) == frame.ROUNDS[0] and disturbed == 0
    rounds = list(zip(order[2::2], order[3::2]))
    assert rounds == [("b", "a"), ("a", "b"), ("b", "a"), ("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")]


@pytest.mark.parametrize("often, disturbed", [(3, 0.0), (1, 1.0)])  # every third round, every round
def test_rounds_without_a_core_are_taken_again(monkeypatch, often, disturbed):
    calls, lost = [0], [0.0]

    class Slow:
        inner = calls = 1

        def __call__(self):
            calls[0] += 1
            late = calls[0] > 2 and (calls[0] - 1) // 2 % often == 0  # two calls a round, after the first two
            lost[0] += late
            return 1.0 + late

    monkeypatch.setattr(frame, "waited", lambda: lost[0])
    a, b, found = frame.in_turns(Slow(), Slow(), budget=0.1)
    assert found == disturbed and len(a) == len(b) == frame.ROUNDS[0]
    assert set(a + b) == {1.0 + disturbed}


def test_a_thread_that_has_no_core_waits():
    assert 0 <= frame.waited() <= frame.waited()


@pytest.mark.parametrize("which", frame.PASSES)
def test_passes_are_the_derivatives(which):
    x = torch.randn(5, dtype=torch.float64)
    out, *gradients = frame.passes(lambda x: x.pow(3).sum(), which)(x)
    assert out == x.pow(3).sum()
    wanted = {"forward": [], "backward": [3 * x**2], "double": [36 * x**3]}[which]  # of Σ (3x²)²
    for got, true in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, true)


def test_a_check_refuses_what_is_wrong_and_what_is_nan():
    check = frame.close(1e-5, lambda x: (x.exp(),))
    x = torch.randn(100)
    check((x.exp(),), x)
    for wrong in (x.exp() * (1 + 1e-4), torch.full_like(x, float("nan"))):
        with pytest.raises(AssertionError, match="relative errors"):
            check((wrong,), x)


def test_inputs_fill_more_than_the_caches():
    sets = frame.input_sets(lambda: (torch.randn(2**20),), "cpu")
    assert len(sets) == 16 and len({s[0].data_ptr() for s in sets}) == 16
    assert len(frame.input_sets(lambda: (torch.randn(3),), "cpu")) == frame.MOST_SETS
    assert len(frame.input_sets(tuple, "cpu")) == 1


def test_peak_memory_counts_what_lived_at_once():
    x = torch.randn(1000, 1000)
    assert 8e6 <= frame.peak_memory(lambda x: ((x + 1) * 2).sum(), (x,), "cpu") < 8.1e6
    assert 4e6 <= frame.peak_memory(lambda x: x + 1, (x,), "cpu") < 4.1e6


def test_a_timer_times():
    x = torch.randn(300, 300)
    timer = frame.Timer(lambda x: (x @ x,), [(x,)], "cpu")
    torch.testing.assert_close(timer.result[0], x @ x)
    assert 1e-6 < timer() < 1


def test_results_are_kept_row_by_row(tmp_path):
    here = {"revision": "abc", "cpu": "a chip", "torch": "2"}
    file = tmp_path / "deep" / "results.json"
    first = store.Results(file, here)
    first.add("one", {"seconds": 1.0})
    first.add("two", {"error": "AssertionError: wrong"})
    assert first.calibrate("cpu", lambda device: {"device": device}) == {"device": "cpu"}
    again = store.Results(file, here)
    assert again.measured("one") and not again.measured("two") and not again.measured("three")
    assert again.calibrate("cpu", pytest.fail) == {"device": "cpu"}
    assert json.loads(file.read_text())["environment"] == here
    again.add("three", {"seconds": 2.0, "place": "cpu"})
    again.rows["one"]["place"] = "cuda"
    again.recalibrate("cpu", {"copy": 7}, lambda row, calibration: {**row, "floor": calibration["copy"]})
    assert again.rows["three"]["floor"] == 7 and "floor" not in again.rows["one"]
    with pytest.raises(store.Mismatch, match="revision 'abc'"):
        store.Results(file, {**here, "revision": "def"})


def test_table_shows_every_figure_or_the_error():
    rows = {
        "t[a]": {"group": "g", "row": "torch", "place": "cpu", **row([2e-3, 4e-3], [1e-3, 1e-3])},
        "t[b]": {"group": "g", "row": "ganfast", "place": "cpu", "error": "AssertionError: relative errors [0.5]"},
    }
    text = table.text(rows)
    assert "3.0 !" not in text and "0.01 !" in table.text(
        {"t[c]": rows["t[a]"] | {"impossible": True, "over_floor": 0.01}}
    )
    for words in ("3 ms", "3.00×", "2.50 – 3.50", "9.54 MiB", "1 M", "1 ms (bytes)", "3.0", "relative errors [0.5]"):
        assert words in text
    assert text.index("ganfast  failed") < text.index("torch")


def test_the_better_calibration_is_kept_number_by_number():
    other = {**CALIBRATION, "copy": 2e10, "matmul": {"fp32": 5e10, "bf16": 5e11}, "launch": {"cpu": 2e-6}}
    assert calibrate.better(CALIBRATION, other) == {
        "device": "cpu", "copy": 2e10, "matmul": {"fp32": 1e11, "bf16": 5e11}, "launch": {"cpu": 1e-6},
    }  # fmt: skip


def test_this_machine_is_calibrated_and_described():
    found = calibrate.calibration("cpu")
    assert 1e8 < found["copy"] < 1e13 and 1e9 < found["matmul"]["fp32"] < 1e15 and 1e-8 < found["launch"]["cpu"] < 1e-2
    environment = calibrate.environment()
    assert environment["torch"] == torch.__version__.partition("+")[0] or environment["torch"] == torch.__version__
    assert all(environment[key] for key in ("date", "revision", "command", "cpu", "cores", "threads", "python"))
