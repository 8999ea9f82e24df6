"""bench/results/*.json → docs/benchmarks.md, its plots, and the marked blocks of other pages; nobody types a number.

    python bench/render.py            # writes docs/benchmarks.md, docs/benchmarks/*.png, README's plot, the blocks

A block stands in any page of docs/ between `<!-- results: NAME … -->` and `<!-- end of results -->`, and has the groups
whose rows' names begin with one of the names: `sigmoid_bce/`, `steps/test_dcgan`. A file NAME-again.json is a rerun of
some of NAME.json's rows: the page says how far they moved.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import plots
import table
import verdict
from parts import device_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DOCS, PAGE = ROOT / "bench" / "results", ROOT / "docs", "benchmarks.md"
BLOCK = re.compile(r"(<!-- results: ([^>]+) -->\n).*?(<!-- end of results -->)", re.S)
KINDS = {"cpu": "CPU", "gpu": "GPU"}
NOT_YET = "not measured yet"
AGAIN = "-again"
PLOTS = ("steps", "operators", "scaling", "roofline")

INTRODUCTION = f"""\
# Benchmarks

Written by `python bench/render.py` from the files in `bench/results/`; do not edit it by hand. Where something has no
results it says: {NOT_YET}.
"""
HOW_TO_READ = """
## How to read the tables

A row is one implementation. Before it was timed its results were checked against fp64 (whole steps: its losses against
the plain eager step's, for three updates); a row that failed has no time. Implementations are timed in turns with
ganfast's: *over ganfast* is the median of the ratios of neighbours, with its quartiles: above 1, ganfast is faster.
ganfast's own row is timed against itself: how far its quartiles lie from 1 is the noise of the machine. *floor* is the
largest of bytes over the copy bandwidth, operations over the rate of a product or convolution and launches over the
launch time, each measured on that machine at the start of the run; *time/floor* is what is left to gain. Below 1 the
data lay in a cache, or were only read, or the library needs fewer operations than the definition; an exclamation mark
stands where it is below a half, which cannot be: that floor is wrong. *peak memory* is what torch allocates beyond what
was there; results included, memory that a C++ operator takes for itself not. On a CPU freed memory stays with the
process, as most of it does in a training run, and a round in which other processes had the cores is taken again.
Quartiles are those of one run; a line below each machine says how far a second run moved: trust that more.

What ganfast stands beside: *eager*, as tutorials have it (fp32, NCHW); *tuned*, as well as torch does it
(channels_last, fused Adam, TF32, cudnn.benchmark, no wasted gradients); *compiled*, that under torch.compile (penalties
by nested torch.func.grad); *traced*, its double backward in one compiled region; on a GPU also *max-autotune*, and each
captured in a CUDA graph. bf16 is autocast, in all rows but *eager*. Each docstring in `bench/test_*.py` says its rows.

    make bench                                                    the quick set, a minute on two cores
    python -m pytest bench --benchmark-only --results FILE.json   everything
    bench/gpu.sh                                                  what half an hour of a GPU is worth, nine minutes a go
"""
REASONS = {  # beginning of a group → why ganfast is slower there
    "interpolate": "the operator's checks in Python, and a kernel that moves the same bytes no faster; that is "
    "microseconds in a step of milliseconds",
    "dcgan": "Python in front of each fused layer, more of it under autocast, beside convolutions that are torch's own "
    "on a CPU; it shows where a step is short",
    "layer": "Python in front of a fused layer, more of it under autocast, beside a convolution that is torch's own on "
    "a CPU; it shows where a layer is short",
}


def load(folder: Path) -> dict:
    """name → results, of all files in the folder."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


HOST = ("stub", "host")  # places of the host's time alone


def of_host(files: dict, wanted: bool) -> dict:
    """The files with their rows of the host's time alone, or with all others; those that have none are left out."""
    split = {
        name: f | {"rows": {n: row for n, row in f["rows"].items() if (row["place"] in HOST) == wanted}}
        for name, f in files.items()
    }
    return {name: f for name, f in split.items() if f["rows"]}


def kind_of(results: dict) -> str:
    return "gpu" if results["environment"].get("gpu") else "cpu"


def of_kind(files: dict, kind: str) -> dict:
    """The files that have a section of their own, of this kind of device."""
    return {name: f for name, f in files.items() if kind_of(f) == kind and not name.endswith(AGAIN)}


def places(results: dict, kind: str) -> dict:
    """The rows of a file that ran on that kind of device."""
    return {name: row for name, row in results["rows"].items() if (device_of(row["place"]) == "cpu") == (kind == "cpu")}


# --- in short ---------------------------------------------------------------------------------------------------------


def short(results: dict) -> list[str]:
    """What a reader takes away in a minute."""
    rows = places(results, kind_of(results))
    best = verdict.fastest(rows)
    count = {kind: sum(verdict.verdict(row) == kind for row in best) for kind in plots.COLOURS}
    lines = [
        f"{title_of(results)}. In {len(best)} cases ganfast stands beside the fastest alternative that was measured: "
        f"it is faster in {count['faster']}, neither faster nor slower in {count['equal']} (within "
        f"{100 * verdict.EQUAL:.0f} %, or within the noise), slower in {count['slower']}.",
        "",
        "Whole steps; how many times as long each takes as ganfast's (quartiles):",
        "",
        "| step | as tutorials have it | tuned | torch.compile | ganfast itself under torch.compile |",
        "|---|---|---|---|---|",
    ]
    for group, members in table.groups(verdict.good(rows)).items():
        if verdict.is_step(members[0]) and verdict.alternatives(members):
            by = {row["row"]: row for row in members}
            compiled = [by[name] for name in ("compiled", "traced", "max-autotune") if name in by]
            columns = (
                by.get("eager") or by.get("examples"), by.get("tuned"),
                min(compiled, key=lambda row: row["ratio"], default=None), by.get("ganfast compiled"),
            )  # fmt: skip
            lines.append(f"| {', '.join(verdict.title(group))} | " + " | ".join(map(_cell, columns)) + " |")
    lines += [
        "", "Operators, each beside the fastest alternative of each case:", "",
        "| operator | cases | faster, equal, slower | least | median | most |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    kinds: dict = {}
    for row in best:
        if not verdict.is_step(row):
            kinds.setdefault(verdict.title(row["group"])[0], []).append(row)
    for what, members in kinds.items():
        low, middle, high = (f"{r:.2f}×" for r in _three([row["ratio"] for row in members]))
        kept = [verdict.verdict(row) for row in members]
        counts = ", ".join(str(kept.count(kind)) for kind in ("faster", "equal", "slower"))
        lines.append(f"| {what} | {len(members)} | {counts} | {low} | {middle} | {high} |")
    return [*lines, *slower(best)]


def _cell(row) -> str:
    return "" if row is None else f"{table.ratio(row)} ({table.spread(*row['ratio_quartiles'], '{:.2f}'.format)})"


def _three(values: list) -> tuple:
    values = sorted(values)
    middle = len(values) // 2
    return values[0], (values[middle] + values[-middle - 1]) / 2, values[-1]


def side_by_side(files: dict) -> list[str]:
    """One Markdown table: of each group, for each GPU, ganfast's time and the fastest alternative's over it."""
    groups = {name: table.groups(verdict.good(places(f, "gpu"))) for name, f in files.items()}
    cards = [f"{f['environment']['gpu']} | over ganfast" for f in files.values()]
    lines = ["\n### GPUs side by side\n", "| | " + " | ".join(cards) + " |", "|---" * (2 * len(cards) + 1) + "|"]
    for group in dict.fromkeys(group for found in groups.values() for group in found):
        cells = []
        for found in groups.values():
            members = found.get(group, [])
            own, others = verdict.ours(members), verdict.alternatives(members)
            cells.append(table.seconds(own["seconds"]) if own else "")
            cells.append(f"{_cell(others[0])} {others[0]['row']}" if own and others else "")
        if any(cells):
            lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return lines


def slower(best: list[dict]) -> list[str]:
    """The cases in which ganfast loses, and why."""
    lost: dict = {}
    for row in sorted(best, key=lambda row: row["ratio"]):
        if verdict.verdict(row) == "slower":
            why = next((text for begin, text in REASONS.items() if row["group"].startswith(begin)), "not known yet")
            what, case = verdict.title(row["group"])
            lost.setdefault(why, []).append(f"{what}, {case}, beside {verdict.called(row)}: {_cell(row)}")
    lines = ["", "Slower, the whole list:", ""] if lost else []
    for why, cases in lost.items():
        lines += [f"- {why}:", *(f"  - {case}" for case in cases)]
    return lines


HOSTS_TIME = """
## The host's time

What an eager call costs a caller who does not wait for the device, forward and backward, where few numbers leave the
device idle (`bench/test_host_time.py`). On a GPU it is measured as it is; without one launches are stubs, torch's own
operators run on a few numbers, and 2 µs count for each launch of either (`bench/host.py`). An operator is to cost at
most 1.3 times torch's calls, a whole step 1.05 times. "Kernels" is the way of large tensors and of a graph's warm-up.
"""


def hosts_time(files: dict) -> list[str]:
    lines = [HOSTS_TIME]
    for kind, title in KINDS.items():
        found = {name: f for name, f in files.items() if kind_of(f) == kind}
        lines += [] if found else [f"{title}: {NOT_YET}.\n"]
        for name, results in found.items():
            head = ("ganfast", "torch", "ganfast over torch", "quartiles", "kernels")
            lines += [heading(name, files), "", "| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
            for group, members in table.groups(verdict.good(results["rows"])).items():
                by = {row["row"]: row for row in members}
                cells = [
                    table.seconds(by[row]["seconds"]) if row in by else "" for row in ("ganfast", "torch", "kernels")
                ]
                if "torch" in by:
                    low, high = by["torch"]["ratio_quartiles"]
                    cells[2:2] = [f"{1 / by['torch']['ratio']:.2f}×", table.spread(1 / high, 1 / low, "{:.2f}".format)]
                lines.append(f"| {group.rpartition(' on ')[0]} | " + " | ".join(cells) + " |")
    return lines


# --- text -------------------------------------------------------------------------------------------------------------


def heading(name: str, files: dict) -> str:
    """Hardware, versions, revision, date, command and noise."""
    results = files[name]
    e, rows = results["environment"], verdict.good(results["rows"])
    if kind_of(results) == "gpu":
        machine = f"{e['gpu']}, {e['gpu_memory_gib']} GiB, driver {e['driver']}, CUDA {e['cuda']}, cuDNN {e['cudnn']}"
    else:
        machine = f"{e['cpu']}, {e['cores']} cores, {e['threads']} threads, load {e['load']} at the start"
    disturbed = sum(row.get("disturbed", 0) > 0 for row in rows.values())
    return "\n".join([
        f"- machine: {machine}",
        f"- versions: Python {e['python']}, torch {e['torch']}, triton {e['triton']}, numpy {e['numpy']}",
        f"- ganfast: revision {e['revision']}, {e['date']}",
        f"- command: `{command_of(e)}`",
        *(f"- note: {note}" for note in results.get("notes", [])),
        *(f"- measured ceilings, {device}: {ceilings(c)}" for device, c in results["calibration"].items()),
        f"- noise: the quartiles of ganfast's rows against themselves lie {verdict.noise(rows):.3f} apart (median); "
        f"{disturbed} of {len(rows)} rows have rounds in which other processes had the cores",
        *reruns(name, files),
    ])  # fmt: skip


def reruns(name: str, files: dict) -> list[str]:
    if name + AGAIN not in files:
        return []
    second = files[name + AGAIN]
    count, median, most, worst, apart = verdict.again(files[name]["rows"], second["rows"])
    return [
        f"- a rerun of {count} alternatives ({second['environment']['date'][:16]}, revision "
        f"{second['environment']['revision']}): their ratios moved by {100 * median:.1f} % (median), at most by "
        f"{100 * most:.0f} % (`{worst}`); in {apart} the quartiles of both runs do not meet"
    ]


def command_of(environment: dict) -> str:
    settings = environment.get("settings", {})
    return " ".join([*(f"{k}={v}" for k, v in settings.items()), environment["command"]])


def ceilings(calibration: dict) -> str:
    rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in calibration["matmul"].items())
    launches = ", ".join(f"{table.seconds(t)} ({where})" for where, t in calibration["launch"].items())
    return f"copy {calibration['copy'] / 1e9:.3g} GB/s, arithmetic {rates} Tflop/s, launch {launches}"


def title_of(results: dict) -> str:
    environment = results["environment"]
    machine = environment.get("gpu") or f"{environment['cpu']}, {environment['threads']} threads"
    return f"{machine}, torch {environment['torch']}"


def tables(rows: dict) -> list[str]:
    """A heading and a Markdown table for each kind of step or operator: every row."""
    kinds: dict = {}
    for group, members in table.groups(rows).items():
        kinds.setdefault(verdict.title(group)[0], {})[group] = members
    lines = []
    for what, groups in kinds.items():
        lines += [f"\n### {what}\n", "| | | " + " | ".join(table.HEAD) + " |", "|---" * (len(table.HEAD) + 2) + "|"]
        for group, members in groups.items():
            for i, row in enumerate(members):
                lines.append(f"| {'' if i else group} | {row['row']} | " + " | ".join(table.cells(row)) + " |")
    return lines


BRIEF = ("ganfast", "time/floor", "peak memory", "fastest alternative", "over ganfast", "quartiles", "peak memory")


def brief(rows: dict) -> list[str]:
    """One Markdown table: of each group ganfast and the fastest alternative, and every row that failed."""
    lines = ["| | " + " | ".join(BRIEF) + " |", "|---" * (len(BRIEF) + 1) + "|"]
    for group, members in table.groups(rows).items():
        for row in members:
            if "error" in row:
                lines.append(f"| {group} | {row['row']} failed: {row['error']} |" + " |" * (len(BRIEF) - 1))
        measured = [row for row in members if "seconds" in row]
        own, others = verdict.ours(measured), verdict.alternatives(measured)
        if own:
            cells = [table.seconds(own["seconds"]), table.over_floor(own), table.size(own["peak_memory"])]
            if others:
                row = others[0]
                spread = table.spread(*row["ratio_quartiles"], "{:.2f}".format)
                cells += [row["row"], table.ratio(row), spread, table.size(row["peak_memory"])]
            lines.append(f"| {group} | " + " | ".join(cells + [""] * (len(BRIEF) - len(cells))) + " |")
    return lines


def block(files: dict, names: list[str]) -> str:
    """What a block says: the groups of these names on each kind of device, or that there are none yet."""
    parts = []
    for kind, title in KINDS.items():
        found = of_kind(files, kind)
        rows = {
            file: {n: r for n, r in results["rows"].items() if n.startswith(tuple(names))}
            for file, results in found.items()
        }
        if not any(rows.values()):
            parts.append(f"{title}: {NOT_YET}.")
        for file, results in found.items():
            if rows[file]:
                e = results["environment"]
                parts.append(f"{title_of(results)}, revision {e['revision']}, {e['date'][:10]}, `{command_of(e)}`:")
                parts.append("\n".join(brief(rows[file])))
    return "\n\n".join(parts)


def filled(text: str, files: dict) -> str:
    """A page with its blocks written anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{block(files, m[2].split())}\n{m[3]}", text)


def pages(docs: Path) -> list[Path]:
    """The pages that have blocks."""
    return [path for path in sorted(docs.rglob("*.md")) if BLOCK.search(path.read_text())]


def page(measured: dict, drawn: dict) -> str:
    """The text of docs/benchmarks.md; drawn: file's name → paths of its plots, relative to docs/."""
    files, host = of_host(measured, False), of_host(measured, True)
    lines = [INTRODUCTION, "## In short"]
    for kind, title in KINDS.items():
        found = of_kind(files, kind)
        lines += [f"\n### {title}, in short\n", *([] if found else [NOT_YET])]
        for results in found.values():
            lines += short(results)
        if kind == "gpu" and len(found) > 1:
            lines += side_by_side(found)
    lines += [HOW_TO_READ, *hosts_time(host)]
    for kind, title in KINDS.items():
        found = of_kind(files, kind)
        lines += [] if found else [f"\n## {title}\n\n{NOT_YET}"]
        for name, results in found.items():
            lines += [f"\n## {title}: {name.removeprefix('results-')}\n", heading(name, files), ""]
            lines += [f"![{Path(plot).stem}]({plot})\n" for plot in drawn.get(name, [])]
            lines += tables(results["rows"])
    return "\n".join(lines).rstrip() + "\n"


# --- plots ------------------------------------------------------------------------------------------------------------


def draw(files: dict, folder: Path) -> dict:
    """The plots of each file; their paths relative to the folder above."""
    drawn = {}
    for kind in KINDS:
        for name, results in of_kind(files, kind).items():
            rows, title = places(results, kind), title_of(results)
            paths = {what: folder / f"{name}-{what}.png" for what in PLOTS}
            calibration = results["calibration"].get("cuda" if kind == "gpu" else "cpu")
            made = {
                "steps": plots.steps(rows, title, paths["steps"]),
                "operators": plots.operators(rows, title, paths["operators"]),
                "scaling": plots.scaling(rows, title, paths["scaling"]),
                "roofline": plots.roofline(rows, calibration, title, paths["roofline"]),
            }
            drawn[name] = [f"{folder.name}/{paths[what].name}" for what, there in made.items() if there]
    return drawn


def headline(files: dict, path: Path) -> bool:
    """README's plot, of a GPU's results if there are any."""
    first = [*of_kind(files, "gpu").values(), *of_kind(files, "cpu").values()][:1]
    return any(plots.headline(places(f, kind_of(f)), title_of(f), path) for f in first)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of the pages")
    options = parser.parse_args()
    measured = load(options.results)
    files = of_host(measured, False)
    target = options.docs / PAGE
    folder = target.with_suffix("")
    drawn = draw(files, folder)
    headline(files, folder / "headline.png")
    target.write_text(page(measured, drawn))
    for path in pages(options.docs):
        path.write_text(filled(path.read_text(), files))
    print(f"{target}: {sum(len(f['rows']) for f in measured.values())} rows of {len(measured)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
