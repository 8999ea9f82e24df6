import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ganfast.training import monitor as monitor_module
from ganfast.training.monitor import Monitor, percentiles


def open_monitor(run, step=0) -> Monitor:
    return Monitor(run, step, 100, 8, ("accuracy_real", "accuracy_fake"), progress=False)


FIGURES = {"loss_d": 1.0, "loss_g": 2.0, "accuracy_real": 0.5, "accuracy_fake": 0.25}


def test_percentiles_are_nearest_ranks():
    assert percentiles([]) == {}
    assert percentiles([0.002]) == {"step_ms_p50": 2.0, "step_ms_p95": 2.0}
    assert percentiles([k / 1000 for k in range(100, 0, -1)]) == {"step_ms_p50": 50.0, "step_ms_p95": 95.0}


def test_a_row_takes_figures_by_name(tmp_path):
    with open_monitor(tmp_path) as monitor:
        monitor.row(20, 160, FIGURES)
        monitor.row(40, 320, {**FIGURES, "gpu_memory_mb": 7.5})
    first, second = map(json.loads, (tmp_path / "stats.jsonl").read_text().splitlines())
    assert first == {"step": 20, "images": 160, **FIGURES, "images_per_second": first["images_per_second"]}
    assert second["gpu_memory_mb"] == 7.5 and set(second) == {*first, "gpu_memory_mb"}


@pytest.fixture
def clock(monkeypatch):
    """The monitor's clock, in seconds: clock[0] += 0.01."""
    now = [100.0]
    monkeypatch.setattr(monitor_module, "time", SimpleNamespace(perf_counter=lambda: now[0], strftime=time.strftime))
    return now


def test_steps_are_timed_without_what_is_done_between_them(tmp_path, clock):
    with open_monitor(tmp_path) as monitor:
        for step in range(1, 5):
            clock[0] += step / 100
            monitor.tick()
            clock[0] += 0.1  # a picture is made
            monitor.picture(step, np.zeros((4, 4, 1), np.uint8))
        monitor.row(4, 32, FIGURES)
        monitor.row(5, 40, FIGURES)
    first, second = map(json.loads, (tmp_path / "stats.jsonl").read_text().splitlines())
    assert (first["step_ms_p50"], first["step_ms_p95"]) == (20, 40)
    assert "step_ms_p50" not in second  # no step in its window


def test_a_row_that_comes_late_has_the_times_of_its_own_steps(tmp_path, clock):
    with open_monitor(tmp_path) as monitor:
        for seconds in (0.01, 0.01, 0.08, 0.08):
            clock[0] += seconds
            monitor.tick()
        monitor.row(2, 16, FIGURES)
        monitor.row(4, 32, FIGURES)
    first, second = map(json.loads, (tmp_path / "stats.jsonl").read_text().splitlines())
    assert (first["step_ms_p50"], second["step_ms_p50"]) == (10, 80)
    assert (first["images_per_second"], second["images_per_second"]) == (2 * 8 / 0.02, 2 * 8 / 0.16)


def test_losses_are_drawn_though_older_rows_lack_a_column(tmp_path):
    (tmp_path / "stats.jsonl").write_text(json.dumps({"step": 20, "images": 160, **FIGURES}) + "\n")
    with Monitor(tmp_path, 20, 100, 8, ("accuracy_real",), progress=False) as monitor:
        monitor.row(40, 320, {**FIGURES, "grad_norm_d": 1.0})
        monitor.plot()
    with Image.open(tmp_path / "losses.png") as picture:
        assert picture.size == (880, round(3 * 2.7 * 110))  # losses, accuracies, the norm


def test_tensorboard_has_scalars_pictures_and_histograms(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with open_monitor(tmp_path) as monitor:
        monitor.tick()
        monitor.row(20, 160, {**FIGURES, "data_wait_ms": 0.5})
        monitor.picture(20, np.zeros((4, 4, 3), np.uint8))
        monitor.gradient_norms(20, "D", torch.tensor([1.0, 2.0, 4.0]))
        monitor.gradient_norms(20, "G", [0.5])
    log = events.EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    tags = log.Tags()
    assert set(tags["scalars"]) == {*FIGURES, "data_wait_ms", "images_per_second", "step_ms_p50", "step_ms_p95"}
    assert tags["images"] == ["fakes"]
    assert tags["histograms"] == ["gradient_norms/D", "gradient_norms/G"]
    (histogram,) = log.Histograms("gradient_norms/D")
    assert histogram.step == 20 and histogram.histogram_value.num == 3 and histogram.histogram_value.sum == 7.0


def test_without_tensorboard_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with open_monitor(tmp_path) as monitor:
        monitor.gradient_norms(1, "D", [1.0])
        monitor.row(1, 8, FIGURES)
    assert "tensorboard is not installed" in (tmp_path / "log.txt").read_text()
