"""What turns results into evidence: the page, the comparison of revisions, tuning."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import classics
import compare
import modes
import papers
import pytest
import render
import tune
import verdict

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "date": "2026-01-02T03:04:05+00:00", "revision": "0123456789ab", "command": "python -m pytest bench",
    "cpu": "a chip", "cores": 2, "threads": 2, "load": 0.1, "python": "3.12", "torch": "2.11", "triton": "3.6",
    "numpy": "2.3", "system": "Linux",
}  # fmt: skip
CALIBRATION = {"device": "cpu", "copy": 2e10, "matmul": {"fp32": 1e11}, "launch": {"cpu": 1e-6}}


def a_row(group, row, seconds=2e-3, ratio=1.0, place="cpu"):
    return {
        "group": group, "row": row, "place": place, "seconds": seconds, "quartiles": [seconds, seconds], "rounds": 9,
        "ratio": ratio, "ratio_quartiles": [0.9 * ratio, 1.1 * ratio], "bytes": 1e7, "operations": 1e6, "dtype": "fp32",
        "launches": 1, "floor": 1e-3, "limit": "bytes", "over_floor": seconds / 1e-3, "peak_memory": 4096,
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """A folder with the results of a CPU, one row of them failed."""
    rows = {
        "steps/test_dcgan[cpu-width32-batch16-fp32-ganfast]": a_row("dcgan width 32 batch 16 on cpu", "ganfast", 2e-3),
        "steps/test_dcgan[cpu-width32-batch32-fp32-ganfast]": a_row("dcgan width 32 batch 32 on cpu", "ganfast", 3e-3),
        "steps/test_dcgan[cpu-width32-batch16-fp32-eager]": a_row("dcgan width 32 batch 16 on cpu", "eager", 5e-3, 2.5),
        "steps/test_dcgan[cpu-width32-batch16-fp32-tuned]": {
            "group": "dcgan width 32 batch 16 on cpu", "row": "tuned", "place": "cpu",
            "error": "AssertionError: trains something else",
        },
    }  # fmt: skip
    data = {"environment": ENVIRONMENT, "calibration": {"cpu": CALIBRATION}, "rows": rows}
    (tmp_path / "two-cores.json").write_text(json.dumps(data))
    return tmp_path


def test_the_page_says_what_was_measured_and_what_was_not(results):
    pytest.importorskip("matplotlib")
    page = results / "docs" / "benchmarks.md"
    page.parent.mkdir()
    other = page.with_name("other.md")
    other.write_text("# A\n\n<!-- results: steps/test_dcgan nothing/ -->\nold\n<!-- end of results -->\n\nafter\n")
    command = [sys.executable, ROOT / "bench" / "render.py", "--results", results, "--docs", page.parent]
    subprocess.run(command, check=True, capture_output=True)
    text = page.read_text()
    assert text.index("## In short") < text.index("## How to read") < text.index("\n## CPU")
    assert (
        "faster in 1, neither faster nor slower in 0" in text
        and "| DCGAN-64 step, width 32 batch 16 | 2.50× (2.25 – 2.75) |" in text
    )
    for words in ("a chip, 2 cores", "0123456789ab", "2026-01-02", "`python -m pytest bench`", "torch 2.11", "20 GB/s"):
        assert words in text
    assert "| eager | 5 ms | 5 ms – 5 ms | 2.50× | 2.25 – 2.75 |" in text
    assert "failed: AssertionError: trains something else" in text
    assert text.partition("\n## GPU")[2].strip() == text.partition("### GPU, in short")[2].split("##")[0].strip()
    assert text.partition("\n## GPU")[2].strip() == render.NOT_YET
    for plot in ("two-cores-steps", "two-cores-roofline", "two-cores-scaling", "headline"):
        assert (page.parent / "benchmarks" / f"{plot}.png").stat().st_size > 5000
        assert plot == "headline" or f"(benchmarks/{plot}.png)" in text
    block = other.read_text()
    assert block.startswith("# A\n") and block.endswith("<!-- end of results -->\n\nafter\n") and "old" not in block
    assert "a chip, 2 threads, torch 2.11, revision 0123456789ab, 2026-01-02, `python -m pytest bench`:" in block
    assert "| dcgan width 32 batch 16 on cpu | 2 ms | 2.0 | 4 KiB | eager | 2.50× | 2.25 – 2.75 | 4 KiB |" in block
    assert "tuned failed: AssertionError: trains something else" in block and "GPU: not measured yet.\n" in block
    assert render.block(render.load(results), ["nothing/"]) == "CPU: not measured yet.\n\nGPU: not measured yet."


def test_gpus_stand_side_by_side(results):
    ((name, of_cpu),) = render.load(results).items()
    cards = {"h100": "NVIDIA H100", "h200": "NVIDIA H200"}
    for (file, gpu), factor in zip(cards.items(), (1.0, 0.5)):
        case = "dcgan width 64 batch 128 bf16 on graph"
        rows = {f"{file} {row}": a_row(case, row, factor * 4e-3, ratio, "graph") for row, ratio in
                (("ganfast", 1.0), ("tuned", 1.5 / factor))}  # fmt: skip
        environment = ENVIRONMENT | {"gpu": gpu, "gpu_memory_gib": 80, "driver": "5", "cuda": "13", "cudnn": "9"}
        data = {"environment": environment, "calibration": {}, "rows": rows}
        (results / f"results-{file}.json").write_text(json.dumps(data))
    text = render.page(render.load(results), {})
    assert "| | NVIDIA H100 | over ganfast | NVIDIA H200 | over ganfast |" in text
    assert (
        "| dcgan width 64 batch 128 bf16 on graph | 4 ms | 1.50× (1.35 – 1.65) tuned "
        "| 2 ms | 3.00× (2.70 – 3.30) tuned |" in text
    )
    assert "## GPU: h100\n" in text and "## GPU: h200\n" in text and f"## CPU: {name}\n" in text
    assert "side by side" not in render.page({name: of_cpu}, {})


def test_the_hosts_time_has_a_section_of_its_own(results):
    ((name, of_cpu),) = render.load(results).items()
    group = "operator sigmoid_bce on stub"
    rows = {row: a_row(group, row, seconds, ratio, "stub") for row, seconds, ratio in
            (("ganfast", 1e-4, 1.0), ("torch", 8e-5, 0.8), ("kernels", 2e-4, 2.0))}  # fmt: skip
    assert "CPU: not measured yet" in render.page({name: of_cpu}, {}).partition("## The host's time")[2]
    host = {"environment": ENVIRONMENT, "calibration": {}, "rows": rows}
    text = render.page({name: of_cpu, "cpu-host": host}, {})
    assert "| operator sigmoid_bce | 100 µs | 80 µs | 1.25× | 1.14 – 1.39 | 200 µs |" in text
    assert f"## CPU: {name}\n" in text and "## CPU: cpu-host\n" not in text
    assert render.of_host({name: of_cpu}, True) == {}


def test_verdicts_need_more_than_noise_and_reruns_are_compared():
    def row(ratio, low, high):
        return {**a_row("g on cpu", "torch"), "ratio": ratio, "ratio_quartiles": [low, high]}

    assert verdict.verdict(row(1.2, 1.1, 1.3)) == "faster" and verdict.verdict(row(0.8, 0.7, 0.9)) == "slower"
    for equal in (row(1.02, 1.01, 1.03), row(1.2, 0.9, 1.5), row(0.98, 0.97, 0.99)):
        assert verdict.verdict(equal) == "equal"
    first, second = ({"a": row(r, r - 0.1, r + 0.1), "b": row(1.0, 0.9, 1.1)} for r in (1.0, 1.5))
    assert verdict.again(first, second) == (2, 0.25, 0.5, "a", 1)
    assert verdict.again(first, {}) == (0, 0.0, 0.0, "", 0)
    assert verdict.title("critic r1 conv width 16 batch 4 fp32 on cpu")[1] == "width 16 batch 4 fp32"


def test_the_page_of_the_classics_is_what_its_results_say():
    from ganfast.recipes import RECIPES

    unconditional = {name for name, each in RECIPES.items() if not each().given} - {"began", "cyclegan"}
    unconditional -= papers.sheets().keys()
    assert set(classics.RECIPES) == unconditional
    assert classics.PAGE.read_text() == classics.render(json.loads(classics.RESULTS.read_text()))


def test_the_page_of_papers_is_what_its_results_say():
    for page in papers.HEADS:
        assert (render.DOCS / f"{page}.md").read_text() == papers.render(page), "python bench/papers.py --render"
    for name, sheet in papers.sheets().items():
        found, runs = papers.results(name), {run["name"]: run for run in sheet["runs"]}
        assert found.keys() <= runs.keys()
        for run, measured in found.items():
            assert measured["command"] == f"ganfast train {runs[run]['train']}", "measure it anew: --run"
            assert measured["figures"].keys() == {f["what"] for f in sheet["figures"] if papers.wanted(f, runs[run])}


def test_the_page_of_modes_is_what_its_results_say(tmp_path):
    modes.render(modes.RESULTS, tmp_path / "modes.md")
    assert (tmp_path / "modes.md").read_text() == modes.PAGE.read_text(), "python bench/modes.py --render"


def test_the_committed_pages_are_what_the_results_say():
    files = render.load(render.RESULTS)
    page = render.DOCS / render.PAGE
    plots = {
        name: [f"benchmarks/{p.name}" for what in render.PLOTS
               if (p := page.with_suffix("") / f"{name}-{what}.png").exists()]
        for name in files
    }  # fmt: skip
    assert page.read_text() == render.page(files, plots), "python bench/render.py"
    pages = render.pages(render.DOCS)
    operators = {path.stem for path in (ROOT / "docs" / "kernels").glob("*.md")}
    assert operators <= {path.stem for path in pages}, "a page on an operator has a block of results"
    for path in pages:
        text = path.read_text()
        assert text == render.filled(text, files), f"{path}: python bench/render.py"
        for names in (m[2].split() for m in render.BLOCK.finditer(text)):
            for name in names:
                file, _, test = name.partition("/")
                source = (ROOT / "bench" / f"test_{file}.py").read_text()
                assert f"def {test}" in source, f"{path}: no benchmark {name}"


def test_no_figure_is_typed_into_a_page():
    """Times and speed-ups stand in blocks, or under a heading that says that they are History, or are on paper."""
    written = {
        render.PAGE,
        modes.PAGE.name,
        classics.PAGE.name,
        *(f"{page}.md" for page in papers.HEADS),
    }  # by scripts, from results
    for path in (ROOT / "README.md", *render.DOCS.rglob("*.md")):
        if path.name in written:
            continue
        for section in re.split(r"^(?=##? )", render.BLOCK.sub("", path.read_text()), flags=re.M):
            heading = section.partition("\n")[0]
            if not heading.startswith("## History") and not heading.endswith("on paper"):
                found = re.findall(
                    r".*\d (?:ns|µs|ms)\b.*|.*\d\.\d+×.*|.*\d times (?:as )?(?:fast|slow|long).*", section
                )
                assert not found, f"{path}: {found}"


def test_no_speed_up_where_a_check_failed():
    before = {"a": a_row("a", "ganfast", 4e-3), "a torch": a_row("a", "torch"), "b": a_row("b", "ganfast")}
    after = {**before, "a": a_row("a", "ganfast", 2e-3)}
    lines, right = compare.verdicts([before, before], [after, after])
    assert right and lines == [
        "a: 2.00× (2.00 – 2.00), 4 ms before, 2 ms now",
        "b: 1.00× (1.00 – 1.00), 2 ms before, 2 ms now",
    ]
    failed = {"group": "a", "row": "ganfast", "place": "cpu", "error": "AssertionError: relative errors [0.5]"}
    for befores, afters in (([before, before], [after, {**after, "a": failed}]), ([{**before, "a": failed}], [after])):
        lines, right = compare.verdicts(befores, afters)
        assert not right and lines[0] == "a: no speed-up: AssertionError: relative errors [0.5]"
        assert "×" not in lines[0]
    del after["b"]
    assert compare.verdicts([before], [after])[0][-1] == "b: no speed-up: one side has no such row"
    failed_baseline = {**before, "a torch": {**failed, "row": "torch"}}
    assert not compare.verdicts([before], [failed_baseline])[1]
    assert compare.verdicts([], []) == ([], False)


def test_tuning_starts_from_what_stands_and_restores_it():
    kernels = pytest.importorskip("ganfast.kernels.interpolate")
    (search,) = tune.searches("interpolate")
    stands = {"BLOCK": kernels.BLOCK, "WARPS": kernels.WARPS}
    assert search.constants[0] == stands and search.constants.count(stands) == 1 and len(search.constants) == 12
    assert len(search.calls) == 5 * len(tune.DTYPES)
    with tune.constants(kernels, {"BLOCK": 64, "WARPS": 2}):
        assert (kernels.BLOCK, kernels.WARPS) == (64, 2)
    assert stands == {"BLOCK": kernels.BLOCK, "WARPS": kernels.WARPS}


@pytest.mark.slow
def test_tuning_reads_machine_code_without_a_gpu(capsys):
    pytest.importorskip("triton")
    found = [search for op in ("interpolate", "conv_bn_act") for search in tune.searches(op)]
    chosen = [found[0], next(s for s in found if s.what == "weight 2048x512x16x256 half")]
    for search in chosen:
        search.constants, search.calls = search.constants[:2], search.calls[:1]
    rows, saved = [], []
    assert tune.tune(chosen, "90", time.monotonic() + 300, rows, saved.append) == {} and len(saved) == len(rows) == 4
    assert [row["constants"] for row in rows[:2]] == [search.constants[0] for search in chosen]
    for row in rows:
        if row["code"] is None:
            pytest.skip("Triton's wheel has no cuobjdump here")
        assert row["code"]["registers"] >= 16 and row["code"]["spills"] == 0 and "score" not in row, row
    assert capsys.readouterr().out.count("not timed") == 2


def test_a_convolution_takes_the_configuration_that_is_known_to_be_best():
    kernels = pytest.importorskip("ganfast.kernels.conv_bn_act")
    launches, declaration = tune.launches, tune.launches.declared()["conv_bn_act"]
    found = tune.searches("conv_bn_act")
    assert {s.what.rpartition(" ")[2] for s in found} == {"tf32", "half"}
    assert {s.what.split(" ")[0] for s in found} == {"forward", "data", "affine", "weight"}
    for search in found:
        tried = declaration.candidates(search.what)
        assert len(search.constants) == 1 + len(tried) and len(set(tried)) == len(tried) > 3, search.what
        assert all(32 <= bm * bn <= 256 * 64 and warps in (4, 8) for bm, bn, _, warps, *_ in tried)
    for search in found[:6]:
        best = declaration.candidates(search.what)[1]
        call = search.calls[0]
        with tune.constants(kernels, {"BEST": {search.what: best}}):
            recorded = launches.record(lambda: call.run(*call.of("meta")))  # noqa: B023  called at once
        launch = next(launch for launch in recorded if "BM" in dict(launch.constants))
        given = {**dict(launch.constants), **dict(launch.options)}
        assert [given[k] for k in ("BM", "BN", "BK", "num_warps", "num_stages")] == list(best[:5]), search.what


def test_winners_are_written_and_read_by_the_kernels(tmp_path, monkeypatch):
    tuned = pytest.importorskip("ganfast.kernels.tuned")
    copy = tmp_path / "tuned.py"
    copy.write_text(tune.TUNED.read_text())
    monkeypatch.setattr(tune, "TUNED", copy)
    known = {"80": {"interpolate": {"BLOCK": 2048}}, "90": {"conv_bn_act": {"BEST": {"a": [16, 16], "b": [32, 32]}}}}
    monkeypatch.setattr(tuned, "TABLE", known)
    best = {("interpolate", "constants"): (0.9, {"BLOCK": 1024, "WARPS": 4})}
    best |= {("conv_bn_act", name): (0.8, {"BEST": {name: [64, 64]}}) for name in "bc"}
    tune.write("90", tune._winners(best))
    space = {}
    exec(compile(copy.read_text(), copy, "exec"), space)
    assert space["TABLE"] == {
        "80": {"interpolate": {"BLOCK": 2048}},
        "90": {
            "interpolate": {"BLOCK": 1024, "WARPS": 4},
            "conv_bn_act": {"BEST": {"a": [16, 16], "b": [64, 64], "c": [64, 64]}},
        },
    }

    class Active:
        arch = "90"

        @classmethod
        def get_current_target(cls):
            return cls

    monkeypatch.setattr(space["triton"].runtime.driver, "_active", Active)
    assert space["constants"]("interpolate") == {"BLOCK": 1024, "WARPS": 4}
    assert space["constants"]("pairwise_l1") == {}
