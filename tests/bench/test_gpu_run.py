"""The run on a GPU: its plan, its tests, what it keeps where something is lost, cut off or wrong. Here on a CPU."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import gpu_tests
import parts
import pytest
import store

ROOT = Path(__file__).resolve().parents[2]

# --- tests, several files at once -------------------------------------------------------------------------------------

HEAD = "import os, pathlib, pytest, signal, time\n\n"
TEST = "@pytest.mark.gpu\ndef test_{0}():\n    {1}\n\n"


@pytest.fixture
def tests(tmp_path, monkeypatch):
    """write(name=body, …) → (file, log): a file of tests, run without the plugins, which take a second to start."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n    slow\n")

    def write(**bodies):
        file = tmp_path / "test_it.py"
        file.write_text(HEAD + "".join(TEST.format(*one) for one in bodies.items()))
        return file, tmp_path / "log.txt"

    return write


def test_gpu_tests_go_on_and_name_what_cannot_be_imported(tests, tmp_path):
    file, log = tests(a="assert True", b="assert False")
    assert gpu_tests.run(file, log) == 1
    assert gpu_tests.outcomes(log) == {"test_it.py::test_a": "passed", "test_it.py::test_b": "failed"}
    tests(a="assert False", b="assert False", c="assert True")  # a and b have come to an end
    assert gpu_tests.run(file, log) == 0 and gpu_tests.outcomes(log)["test_it.py::test_c"] == "passed"
    assert gpu_tests.run(file, log) == 5
    file.write_text("import no_such_package.part\n" + HEAD + TEST.format("c", "pass"))
    assert gpu_tests.run(file, log) == 5
    file.write_text("import ganfast.no_such_part\n" + HEAD + TEST.format("c", "pass"))
    assert gpu_tests.run(file, log) == 2
    (tmp_path / "conftest.py").write_text("import no_such_package\n")
    assert gpu_tests.run(file, log) == 5


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["os.kill(os.getpid(), signal.SIGSEGV)", "time.sleep(600)"])
def test_a_test_that_crashes_or_hangs_costs_one_process(tests, bad, monkeypatch, capfd):
    monkeypatch.setenv("GANFAST_TESTS_LONGEST", "2")
    file, log = tests(a="assert True", b=bad, c="assert True")
    assert gpu_tests.run(file, log) == 1
    ended = {name.rpartition("_")[2]: outcome for name, outcome in gpu_tests.outcomes(log).items()}
    assert ended == {"a": "passed", "b": "lost", "c": "passed"}
    assert re.search(r"^test_it: .*::test_a PASSED", capfd.readouterr().out, re.M)
    assert gpu_tests.summary({(file, "0/1"): 1}, gpu_tests.outcomes(log)) == 1
    assert "2 passed, 0 skipped, 0 failed, 1 lost\nlost: test_it.py::test_b" in capfd.readouterr().out


def test_a_file_is_dealt_to_several_processes(tests, monkeypatch):
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")  # pytest-randomly shuffles it, each process its own way
    file, log = tests(a="pass", b="pass", c="pass")
    for i in range(2):
        assert gpu_tests.run(file, log, share=f"{i}/2") == 0
        assert len([end for end in gpu_tests.outcomes(log).values() if end == "passed"]) == (2, 3)[i]


def test_a_process_that_dies_before_its_tests_is_not_started_for_ever(tests):
    file, log = tests(a="assert True")
    file.write_text("import os\nos.kill(os.getpid(), 9)\n" + file.read_text())
    assert gpu_tests.run(file, log) == -signal.SIGKILL


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_plan_has_every_row_once_and_fits_half_an_hour():
    rows = parts.rows_on("gpu")
    names = [name for *_, name in rows]
    assert len(names) == len(set(names)) > 500 and {part for part, *_ in rows} <= set(parts.PARTS)
    for part, found in selected("steps-bf16", "compiled").items():  # is what was counted
        assert {name.rpartition("/")[2] for p, _, name in rows if p == part} == set(found) - skipped(found)
    planned = parts.counted(rows)
    calls = parts.calls(planned, [p for p in parts.PARTS if p not in parts.LEFT_OUT], 540)
    assert len(calls) <= 3, calls
    for part, (_, whole) in planned.items():
        if part not in parts.LEFT_OUT:
            assert sum(seconds for call in calls for name, seconds in call if name == part) == pytest.approx(whole)


@pytest.mark.slow
def test_every_gpu_test_is_run():
    listed = [Path(test.partition("::")[0]) for test in parts.tests_of("tests")]
    shares = gpu_tests.shared(gpu_tests.files_in([ROOT / "tests"]), "gpu and not slow")
    assert len(set(listed)) > 8 and set(listed) <= {file for file, _ in shares}
    for file in set(listed):
        assert sum(f == file for f, _ in shares) == -(-listed.count(file) // gpu_tests.MOST)


def selected(*chosen) -> dict:
    """part → the rows that pytest --part selects: one process imports the benchmarks once and collects for each."""
    collect = (
        "import pytest, sys\n"
        "for part in sys.argv[1:]:\n"
        "    print('part', part, flush=True)\n"
        "    pytest.main(['bench', '-q', '-p', 'no:cacheprovider', '--collect-only', '--part', part])\n"
    )
    run = subprocess.run([sys.executable, "-c", collect, *chosen], cwd=ROOT, capture_output=True, text=True)
    found = {}
    for line in run.stdout.splitlines():
        if line.startswith("part "):
            rows = found[line.removeprefix("part ")] = []
        elif "::" in line:
            rows.append(line.rpartition("::")[2])
    return found


def skipped(found) -> set:
    """Rows whose own body says that they are for others: torch.compile of what it cannot take."""
    return {name for name in found if "ganfast compiled" in name and "wgan-gp-conv" not in name}


def test_calls_are_filled_in_order_and_a_long_part_goes_on_in_the_next():
    planned = {"a": (3, 400.0), "b": (5, 900.0), "c": (0, 0.0), "d": (1, 10.0)}
    calls = parts.calls(planned, list(planned), 540)
    assert calls == [[("a", 400), ("b", 140)], [("b", 540)], [("b", 220), ("d", 10)]]


# --- rows that never end, results of no revision ----------------------------------------------------------------------


def test_a_row_that_does_not_end_is_noted_and_ends_the_process(monkeypatch):
    spec = importlib.util.spec_from_file_location("bench_conftest", ROOT / "bench" / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    ended = threading.Event()
    monkeypatch.setattr(conftest.os, "_exit", lambda code: code == conftest.LOST and ended.set())
    monkeypatch.setattr(conftest, "LONGEST", {False: 0.05, True: 60})
    measure = conftest.Measure.__new__(conftest.Measure)
    measure.results = store.Results()

    class Item:
        class config:
            getoption = staticmethod(lambda name: {"part": "ops"}.get(name))

    measure.item = Item
    with measure._in_time("a row", {"row": "ganfast"}):
        assert ended.wait(30)
    assert measure.results.rows == {"a row": {"row": "ganfast", "error": "did not end in 0 s"}}
    ended.clear()
    with measure._in_time("another", {}):
        pass
    time.sleep(0.2)
    assert not ended.is_set() and "another" not in measure.results.rows


def test_results_have_a_revision(tmp_path):
    with pytest.raises(store.Mismatch, match="set GANFAST_REVISION"):
        store.Results(tmp_path / "results.json", {"revision": "unknown"})


# --- gpu.sh -----------------------------------------------------------------------------------------------------------


def gpu_run(folder, *arguments, select="sigmoid_bce and forward and fp32", **more):
    """bench/gpu.sh with OUTDIR folder/out and --work folder/work, where it is installed already."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # xdist's
    environment = {**outside, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "GANFAST_GPU_SELECT": select}
    environment |= more.pop("env", {})
    (folder / "work").mkdir(parents=True, exist_ok=True)
    (folder / "work" / "install.done").touch()
    command = ["bash", ROOT / "bench" / "gpu.sh", folder / "out", "--work", folder / "work", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )


@pytest.fixture
def quick(tmp_path):
    """An environment whose Python says at once that there is no GPU, and whose pytest has nothing to run."""
    python = tmp_path / "python"
    answers = "case \"$*\" in *'-m pytest '*) exit 5 ;; *'import torch'*) echo none cpu; exit ;; esac"
    python.write_text(f'#!/bin/sh\n{answers}\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    return {"PYTHON": str(python)}


def said(run, timeout=300) -> str:
    return run.communicate(timeout=timeout)[0]


def rows_of(folder):
    file = folder / "work" / "results.json"
    return json.loads(file.read_text())["rows"] if file.exists() else {}


def test_gpu_run_refuses_unknown_words(tmp_path):
    for arguments in (["--only", "ops,dance"], ["--quickly"]):
        run = gpu_run(tmp_path, *arguments)
        assert "gpu.sh: no " in said(run) and run.returncode == 2


def test_gpu_run_refuses_what_no_revision_or_another_one_did(tmp_path, quick):
    nowhere = quick | {"GIT_DIR": "/nowhere", "GANFAST_REVISION": "unknown"}
    run = gpu_run(tmp_path, "--only", "ops", "--budget", "0", env=nowhere)
    assert "GANFAST_REVISION=" in said(run) and run.returncode == 2
    for revision, code in (("a" * 12, 75), ("b" * 12, 2), ("a" * 40, 75)):
        run = gpu_run(tmp_path, "--only", "ops", "--budget", "0", env=nowhere | {"GANFAST_REVISION": revision})
        text = said(run)
        assert run.returncode == code, text
        assert code == 75 or ("a" * 12 in text and "b" * 12 in text)


def test_gpu_run_without_time_says_so(tmp_path, quick):
    run = gpu_run(tmp_path, "--only", "ops", "--budget", "0", env=quick)
    assert "no time left" in said(run) and run.returncode == 75


def test_gpu_run_does_not_try_again_what_failed_unless_it_is_told_to(tmp_path, quick):
    (tmp_path / "work").mkdir()
    for part in parts.PARTS:
        (tmp_path / "work" / f"{part}.done").touch()
    (tmp_path / "work" / "ops.done").rename(tmp_path / "work" / "ops.failed")
    run = gpu_run(tmp_path, env=quick)
    assert "ops: failed before; --only ops tries it again" in said(run) and run.returncode == 1
    run = gpu_run(tmp_path, "--only", "ops", env=quick)
    assert "ops: exit 5" in said(run) and run.returncode == 0


@pytest.mark.slow
def test_gpu_run_goes_on_where_it_was_killed_and_on_another_machine(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    only = "--only", "environment,ops", "--budget", "5"
    run = gpu_run(here, *only, start_new_session=True)
    end = time.monotonic() + 240
    while not rows_of(here) and time.monotonic() < end and run.poll() is None:
        time.sleep(0.2)
    assert run.poll() is None, said(run)
    os.killpg(run.pid, signal.SIGTERM)
    text = said(run)
    kept = rows_of(here)
    assert kept, text
    assert json.loads((here / "out" / "results-cpu.json").read_text())["rows"] == kept
    run = gpu_run(there, *only, "--from", here / "out" / "gpu-cpu.tar.gz")
    text = said(run)
    assert run.returncode == 0 and "environment: done before" in text, text
    rows = rows_of(there)
    assert len(rows) == 4 and all("over_floor" in row for row in rows.values())
    assert {name: rows[name] for name in kept} == kept  # not measured twice
    assert sorted(path.name for path in (there / "out").iterdir()) == ["gpu-cpu.tar.gz", "results-cpu.json"]
    assert json.loads((there / "out" / "results-cpu.json").read_text())["rows"] == rows
    with tarfile.open(there / "out" / "gpu-cpu.tar.gz") as tar:
        names = tar.getnames()
    assert {"./results.json", "./ops.log", "./environment.json"} <= set(names)
    assert not any(re.match(r"\./(triton|inductor|install)", name) for name in names)
