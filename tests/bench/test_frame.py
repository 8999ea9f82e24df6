"""The benchmarks' frame: floors, ratios, checks and the results file."""

import json

import calibrate
import frame
import pytest
import store
import table
import torch
from frame import Work

CALIBRATION = {"device": "cpu", "copy": 1e10, "matmul": {"fp32": 1e11, "bf16": 4e11}, "launch": {"cpu": 1e-6}}


def row(times, ours=None, work=Work(bytes=1e7, operations=1e6)):  # noqa: B008  frozen
    found = {"place": "cpu", **frame.row_of(times, ours or times, 0.0, work, 0)}
    return frame.with_floor(found, CALIBRATION)


def test_the_floor_is_the_largest_of_three():
    parts = Work(bytes=1e7, operations=2e8, dtype="bf16", launches=3).floor(CALIBRATION, "cpu")
    assert parts == pytest.approx({"bytes": 1e-3, "operations": 5e-4, "launches": 3e-6})
    found = row([2e-3] * 4)
    assert (found["limit"], found["floor"], found["over_floor"]) == ("bytes", pytest.approx(1e-3), pytest.approx(2.0))


def test_a_floor_that_counts_too_much_is_caught():
    with pytest.raises(AssertionError, match="counts too much"):
        row([2e-3] * 4, work=Work(bytes=1e9))
    with pytest.raises(AssertionError, match="counts too much"):
        row([2e-3] * 4, work=Work(operations=1e12))
    with pytest.raises(AssertionError, match="counts too much"):
        row([float("nan")] * 4)


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
