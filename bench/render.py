"""bench/results/*.json → docs/benchmarks.md, its plots, and the marked blocks of other pages; nobody types a number.

    python bench/render.py            # writes docs/benchmarks.md, docs/benchmarks/*.png, README's plot, the blocks

A block stands in any page of docs/ between `<!-- results: NAME … -->` and `<!-- end of results -->`, and has the rows
whose names begin with one of the names: `sigmoid_bce/`, `steps/test_dcgan`.
"""

import argparse
import itertools
import json
import re
import sys
from pathlib import Path

import table

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DOCS, PAGE = ROOT / "bench" / "results", ROOT / "docs", "benchmarks.md"
BLOCK = re.compile(r"(<!-- results: ([^>]+) -->\n).*?(<!-- end of results -->)", re.S)
KINDS = {"cpu": "CPU", "gpu": "GPU"}
NOT_YET = "not measured yet"
HEADLINE = ("pairwise_l1", "around_the_critic", "gradient_penalty", "sigmoid_bce", "critic", "dcgan")

INTRODUCTION = f"""\
# Benchmarks

Written by `python bench/render.py` from the files in `bench/results/`; do not edit it by hand.

A row is one implementation. Before it was timed its results were checked against fp64 (whole steps: its losses against
the plain eager step's, for three updates); a row that failed has no time. Implementations are timed in turns with
ganfast's: *over ganfast* is the median of the ratios of neighbours, with its quartiles. ganfast's own row is timed
against itself: how far its quartiles lie from 1 is the noise of the machine. *floor* is the largest of bytes over the
copy bandwidth, operations over the matmul rate and launches over the launch time, each measured on that machine at the
start of the run; *time/floor* is what is left to gain. Below 1 the data lay in a cache, or were only read. *peak
memory* is what torch allocates beyond what was there; results included, memory that a C++ operator takes for itself
not. On a CPU freed memory stays with the process, as most of it does in a training run, and the machine is shared with
other work: read the ratios, not the times.

    make bench                                                    the quick set
    python -m pytest bench --benchmark-only --results FILE.json   everything
    bench/gpu.sh                                                  everything on a GPU, in nine minutes a go

Where something has no results it says: {NOT_YET}.
"""


def load(folder: Path) -> dict:
    """name → results, of all files in the folder."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def kind_of(results: dict) -> str:
    return "gpu" if results["environment"].get("gpu") else "cpu"


def places(results: dict, kind: str) -> dict:
    """The rows of a file that ran on that kind of device."""
    return {name: row for name, row in results["rows"].items() if (row["place"] == "cpu") == (kind == "cpu")}


# --- text -------------------------------------------------------------------------------------------------------------


def heading(results: dict) -> str:
    """Hardware, versions, revision, date and command."""
    e = results["environment"]
    if kind_of(results) == "gpu":
        machine = f"{e['gpu']}, {e['gpu_memory_gib']} GiB, driver {e['driver']}, CUDA {e['cuda']}, cuDNN {e['cudnn']}"
    else:
        machine = f"{e['cpu']}, {e['cores']} cores, {e['threads']} threads, load {e['load']} at the start"
    return "\n".join([
        f"- machine: {machine}",
        f"- versions: Python {e['python']}, torch {e['torch']}, triton {e['triton']}, numpy {e['numpy']}",
        f"- ganfast: revision {e['revision']}, {e['date']}",
        f"- command: `{command_of(e)}`",
        *(f"- note: {note}" for note in results.get("notes", [])),
        *(f"- measured ceilings, {device}: {ceilings(c)}" for device, c in results["calibration"].items()),
    ])  # fmt: skip


def command_of(environment: dict) -> str:
    settings = environment.get("settings", {})
    return " ".join([*(f"{k}={v}" for k, v in settings.items()), environment["command"]])


def ceilings(calibration: dict) -> str:
    rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in calibration["matmul"].items())
    launches = ", ".join(f"{table.seconds(t)} ({where})" for where, t in calibration["launch"].items())
    return f"copy {calibration['copy'] / 1e9:.3g} GB/s, matmul {rates} Tflop/s, launch {launches}"


def tables(rows: dict) -> list[str]:
    """A Markdown table for each group."""
    lines = []
    for group, members in table.groups(rows).items():
        lines += [f"\n**{group}**\n", "| | " + " | ".join(table.HEAD) + " |", "|---" * (len(table.HEAD) + 1) + "|"]
        lines += [f"| {row['row']} | " + " | ".join(table.cells(row)) + " |" for row in members]
    return lines


BRIEF = ("time", "over ganfast", "quartiles", "time/floor", "peak memory")


def block(files: dict, names: list[str]) -> str:
    """What a block says: the rows of these names on each kind of device, or that there are none yet."""
    parts = []
    for kind, title in KINDS.items():
        found = {file: results for file, results in files.items() if kind_of(results) == kind}
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


def brief(rows: dict) -> list[str]:
    """One Markdown table of several groups, with the columns BRIEF."""
    lines = ["| | | " + " | ".join(BRIEF) + " |", "|---" * (len(BRIEF) + 2) + "|"]
    columns = [0, 2, 3, 7, 8]  # of table.HEAD
    for group, members in table.groups(rows).items():
        for i, row in enumerate(members):
            cells = table.cells(row)
            lines.append(f"| {'' if i else group} | {row['row']} | " + " | ".join(cells[c] for c in columns) + " |")
    return lines


def filled(text: str, files: dict) -> str:
    """A page with its blocks written anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{block(files, m[2].split())}\n{m[3]}", text)


def pages(docs: Path) -> list[Path]:
    """The pages that have blocks."""
    return [path for path in sorted(docs.rglob("*.md")) if BLOCK.search(path.read_text())]


def page(files: dict, plots: dict) -> str:
    """The text of docs/benchmarks.md; plots: file's name → paths, relative to docs/."""
    lines = [INTRODUCTION]
    for kind, title in KINDS.items():
        found = {name: results for name, results in files.items() if kind_of(results) == kind}
        if not found:
            lines.append(f"\n## {title}\n\n{NOT_YET}\n")
        for name, results in found.items():
            lines += [f"\n## {title}: {name}\n", heading(results), ""]
            lines += [f"![{Path(plot).stem}]({plot})" for plot in plots.get(name, [])]
            lines += tables(results["rows"])
    return "\n".join(lines).rstrip() + "\n"


# --- plots ------------------------------------------------------------------------------------------------------------


def _axes(width, height):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    figure.clear()


def colour(low: float, high: float) -> str:
    """Green: ganfast is faster; red: slower; grey: the quartiles hold 1."""
    return "#1b7f5c" if low > 1 else "#b5483a" if high < 1 else "#9a9a9a"


def good(rows: dict) -> list[dict]:
    return [row for row in rows.values() if "seconds" in row]


def speedups(rows: list[dict], title: str, path: Path) -> bool:
    """One bar a baseline: its time over ganfast's, with quartiles."""
    bars = [row for row in rows if row["row"] != "ganfast"]
    if not bars:
        return False
    bars.sort(key=lambda row: (row["group"], row["ratio"]))
    figure, axes = _axes(9, 1.2 + 0.26 * len(bars))
    names = [f"{row['group'].rpartition(' on ')[0]}: {row['row']}" for row in bars]
    ratios = [row["ratio"] for row in bars]
    low, high = zip(*(row["ratio_quartiles"] for row in bars))
    error = [[r - a for r, a in zip(ratios, low)], [b - r for r, b in zip(ratios, high)]]
    axes.barh(range(len(bars)), ratios, xerr=error, color=[colour(*q) for q in zip(low, high)],
              error_kw={"elinewidth": 1, "ecolor": "#333333"})  # fmt: skip
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(ticks := [t for t in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100) if t <= 2 * max(high)])
    axes.set_xticklabels([f"{t:g}×" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("time over ganfast's (right of 1: ganfast is faster); lines: quartiles; grey: they hold 1")
    axes.set_title(title, fontsize=10)
    _save(figure, path)
    return True


def roofline(rows: list[dict], calibration: dict, title: str, path: Path) -> bool:
    """Operations a second over operations a byte of ganfast's rows, under the measured ceilings."""
    points = [row for row in rows if row["row"] == "ganfast" and row["bytes"] and row["operations"]]
    if not points:
        return False
    figure, axes = _axes(7, 4.5)
    x = [row["operations"] / row["bytes"] for row in points]
    span = [min(x) / 2, max(*x, 10) * 4]
    for name, rate in calibration["matmul"].items():
        ridge = rate / calibration["copy"]
        xs = [span[0], min(max(ridge, span[0]), span[1]), span[1]]
        axes.plot(xs, [min(i * calibration["copy"], rate) / 1e9 for i in xs], linewidth=1, label=f"ceiling, {name}")
    axes.scatter(x, [row["operations"] / row["seconds"] / 1e9 for row in points], s=14, color="#1b7f5c", zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="Gop/s", title=title)
    axes.legend(fontsize=8)
    _save(figure, path)
    return True


def batches(rows: dict) -> dict:
    """(what, row) → [(batch, samples a second)] of the steps that were measured at two batches or more."""
    found: dict = {}
    for name, row in rows.items():
        size = re.search(r"-batch(\d+)", name)
        if size and "seconds" in row:
            batch = int(size[1])
            what = name.replace(size[0], "").partition("[")[2].removesuffix(f"-{row['row']}]")
            test = name.partition("[")[0].rpartition("test_")[2]
            found.setdefault((f"{test} {what}", row["row"]), []).append((batch, batch / row["seconds"]))
    return {key: sorted(points) for key, points in found.items() if len(points) > 1}


def scaling(rows: dict, title: str, path: Path) -> bool:
    """Samples a second over the batch."""
    lines = batches(rows)
    if not lines:
        return False
    figure, axes = _axes(8, 5)
    for (what, row), points in sorted(lines.items()):
        style = "-" if row == "ganfast" else "--"
        axes.plot(*zip(*points), style, marker="o", markersize=3, linewidth=1, label=f"{what}: {row}")
    axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="samples a second", title=title)
    axes.legend(fontsize=6)
    _save(figure, path)
    return True


def draw(files: dict, folder: Path) -> dict:
    """The plots of each file; their paths relative to the folder above."""
    return {name: draw_one(name, results, folder) for name, results in files.items()}


def title_of(results: dict) -> str:
    environment = results["environment"]
    return f"{environment.get('gpu') or environment['cpu']}, torch {environment['torch']}"


def draw_one(name: str, results: dict, folder: Path) -> list[str]:
    kind = kind_of(results)
    rows, title = places(results, kind), title_of(results)
    paths = {what: folder / f"{name}-{what}.png" for what in ("speedups", "roofline", "scaling")}
    calibration = results["calibration"].get("cuda" if kind == "gpu" else "cpu")
    made = {
        "speedups": speedups(good(rows), title, paths["speedups"]),
        "roofline": calibration and roofline(good(rows), calibration, title, paths["roofline"]),
        "scaling": scaling(rows, title, paths["scaling"]),
    }
    return [f"{folder.name}/{paths[what].name}" for what, there in made.items() if there]


def headline(files: dict, path: Path) -> bool:
    """README's plot: the largest case of each operator and kind of step, on a GPU if there are results of one."""
    chosen = sorted(files.items(), key=lambda item: kind_of(item[1]) != "gpu")
    if not chosen:
        return False
    results = chosen[0][1]
    rows = good(places(results, kind_of(results)))
    largest: dict = {}
    for row in rows:
        what = tuple(itertools.takewhile(lambda word: not word[0].isdigit(), row["group"].split()))
        if what[0] in HEADLINE:
            largest[what] = max(largest.get(what, row), row, key=lambda r: r["floor"])
    kept = [row for row in rows if row["group"] in {best["group"] for best in largest.values()}]
    return speedups(kept, title_of(results), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of results")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of the pages")
    options = parser.parse_args()
    files = load(options.results)
    target = options.docs / PAGE
    folder = target.with_suffix("")
    plots = draw(files, folder)
    headline(files, folder / "headline.png")
    target.write_text(page(files, plots))
    for path in pages(options.docs):
        path.write_text(filled(path.read_text(), files))
    print(f"{target}: {sum(len(f['rows']) for f in files.values())} rows of {len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
