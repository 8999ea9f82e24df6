"""Shared by all benchmarks: the fixture `measure`, the results file, the table at the end.

pytest bench --benchmark-only                          # everything
pytest bench --benchmark-only -m "not full"            # the quick set: make bench
pytest bench --benchmark-only --results FILE.json      # writes each row at once; rows that FILE has are skipped
pytest bench --benchmark-only --part NAME              # the rows of one part of a run on a GPU: parts.py
pytest bench --benchmark-disable --rows FILE           # measures nothing: writes which rows there are, with their parts
"""

import contextlib
import os
import threading

import calibrate
import frame
import host
import parts
import pytest
import store
import table
import torch

from ganfast.ops import for_graph

_now = [0.0]


def measured_time() -> float:
    """The clock that pytest-benchmark reads: it goes on by what a frame.Timer measured."""
    return _now[0]


def pytest_addoption(parser):
    parser.addoption("--results", help="JSON file of the rows; those that it has already are not measured again")
    parser.addoption("--budget-row", type=float, default=1.0, help="seconds of measuring a row (default 1)")
    parser.addoption("--part", choices=parts.PARTS, help="only its rows, without those that failed before")
    parser.addoption("--retry", action="store_true", help="also those")
    parser.addoption("--device", choices=("gpu", "cpu"), default="gpu", help="whose parts (default gpu)")
    parser.addoption("--rows", help="file: what would be measured on --device, which need not be there")


RESULTS = pytest.StashKey[store.Results]()
LOST = 70  # exit code: the device, or a kernel that does not end, needs another process
LONGEST = {True: 900.0, False: 150.0}  # seconds of a row of a part that compiles for minutes, and of any other
CALIBRATED_AGAIN = pytest.StashKey[set]()  # devices


def pytest_configure(config):
    config.option.randomly_reorganize = False  # pytest-randomly's, where it is: rows come in the order of the files
    environment = {**calibrate.environment(), "memory": "kept" if frame.keep_memory() else "as the system has it"}
    config.stash[CALIBRATED_AGAIN] = set()
    try:
        config.stash[RESULTS] = store.Results(config.getoption("results"), environment)
    except store.Mismatch as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(config, items):
    for mark in ("full", "long"):  # stable: the quick set first, the long baselines last
        items.sort(key=lambda item: item.get_closest_marker(mark) is not None)
    results, part, device = config.stash[RESULTS], config.getoption("part"), config.getoption("device")

    def wanted(item):
        name = name_of(item) if "measure" in item.fixturenames else None
        if part and parts.part_of(item, device) != part:
            return False
        if part and name in results.rows and not config.getoption("retry"):
            return False
        return not results.measured(name)

    left = [item for item in items if wanted(item)]
    if len(left) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in left])
        items[:] = left
    if config.getoption("rows"):
        open(config.getoption("rows"), "w").close()
        items[:] = [item for item in items if parts.part_of(item, device)]
        for item in items:  # the only such mark says that there is no CUDA device
            item.own_markers[:] = [mark for mark in item.own_markers if mark.name != "skipif"]
    for item in (item for item in items if "measure" in item.fixturenames):
        item.add_marker(pytest.mark.benchmark(timer=measured_time))


def name_of(item) -> str:
    """sigmoid_bce/test_sigmoid_bce[cpu-64-torch], of whatever directory pytest was started in."""
    return f"{item.path.stem.removeprefix('test_')}/{item.name}"


def _word(value):
    if isinstance(value, tuple):
        if all(isinstance(v, int) for v in value) and len(value) > 2:
            return frame.words(value)
        *names, width, batch = value  # of a step
        if isinstance(batch, int):
            return " ".join([*map(_word, names), f"width {width} batch {batch}"])
        return " ".join(map(_word, value))
    return getattr(value, "__name__", str(value))


def group_of(item) -> str:
    """Everything but the row's own name: rows of a group stand side by side."""
    params = item.callspec.params
    others = [_word(v) for k, v in params.items() if k not in ("row", "place")]
    return " ".join([item.originalname.removeprefix("test_"), *others, "on", params["place"]])


class Measure:
    """measure(steps, make, check, work) in a test with parameters `place` and `row`; see frame.py.

    steps      name → step(*args), ganfast's first; results are tuples of tensors
    make       make() → args, new random ones each time
    check      check(results, *args) raises AssertionError where they are wrong
    work       frame.Work: what must be done at least
    """

    def __init__(self, item, benchmark, results, budget):
        self.item, self.benchmark, self.results, self.budget = item, benchmark, results, budget
        self.place = item.callspec.params["place"]
        self.listed = item.config.getoption("rows")
        self.device = "cpu" if self.listed else parts.device_of(self.place)

    def __call__(self, steps, make, check, work):
        name, row = name_of(self.item), self.item.callspec.params["row"]
        if self.listed:
            self.benchmark.pedantic(lambda: None)
            with open(self.listed, "a") as file:
                part = parts.part_of(self.item, self.item.config.getoption("device"))
                file.write(f"{part} {parts.seconds_of(self.item)} {name}\n")
            return
        head = {"group": group_of(self.item), "row": row, "place": self.place}
        self.benchmark.group = head["group"]
        try:
            with self._in_time(name, head), for_graph() if self.place == "graph" else contextlib.nullcontext():
                found = self._measured(steps, row, make, check, work)
        except Exception as error:
            self.results.add(name, {**head, "error": f"{type(error).__name__}: {error}".split("\n")[0][:300]})
            _leave_if_lost(self.device)
            raise
        if found:
            self.benchmark.extra_info.update(head | found)
            self.results.add(name, head | found)

    @contextlib.contextmanager
    def _in_time(self, name, head):
        """Of a part: a row that does not end is noted as such, and the process ends."""
        longest = LONGEST[self.item.config.getoption("part") in ("compiled", "long")]

        def end():
            self.results.add(name, {**head, "error": f"did not end in {longest:.0f} s"})
            os._exit(LOST)

        watch = threading.Timer(longest, end)
        if self.item.config.getoption("part"):
            watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _measured(self, steps, row, make, check, work):
        sets = frame.input_sets(make, self.device)
        ours, theirs = (frame.Timer(steps[name], sets, self.place) for name in (next(iter(steps)), row))
        for timer in (ours, theirs):
            check(timer.result, *sets[0])
            timer.result = None
        if self.benchmark.disabled:
            self.benchmark.pedantic(lambda: None)
            return None
        memory = frame.peak_memory(steps[row], sets[0], self.device)
        with host.stubbed() if self.place == "stub" else contextlib.nullcontext():
            ours, theirs, disturbed = frame.in_turns(ours, theirs, self.budget)
        left = iter(theirs)
        self.benchmark.pedantic(_tick, setup=lambda: ((next(left),), {}), rounds=len(theirs))
        found = frame.row_of(theirs, ours, disturbed, work, memory)
        calibration = self.results.calibrate(self.device, calibrate.calibration)
        beside = frame.beside_floor(found["seconds"], work, self.place, calibration)
        if beside["impossible"] and self.device not in self.item.config.stash[CALIBRATED_AGAIN]:
            # was the calibration disturbed? once more in a run, and the better of both
            self.item.config.stash[CALIBRATED_AGAIN].add(self.device)
            again = calibrate.better(calibration, calibrate.calibration(self.device))
            self.results.recalibrate(self.device, again, frame.with_floor)
            beside = frame.beside_floor(found["seconds"], work, self.place, again)
        return found | beside


def _leave_if_lost(device):
    """After an illegal access no call of CUDA succeeds in this process."""
    if device == "cuda":
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            pytest.exit(f"the device is lost to this process: {error}", LOST)


def _tick(seconds):
    _now[0] += seconds


@pytest.fixture
def measure(request, benchmark):
    config = request.config
    measured = Measure(request.node, benchmark, config.stash[RESULTS], config.getoption("budget_row"))
    if measured.listed:
        yield measured
        return
    torch.manual_seed(0)
    yield measured
    torch.compiler.reset()


def pytest_benchmark_update_json(config, benchmarks, output_json):
    output_json |= {key: config.stash[RESULTS].data[key] for key in ("environment", "calibration")}


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[RESULTS].rows
    if rows:
        terminalreporter.section("beside ganfast, and beside the floor")
        terminalreporter.write_line(table.text(rows))
