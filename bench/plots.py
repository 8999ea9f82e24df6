"""The pictures of docs/benchmarks.md and README, made of a results file by render.py."""

import re
from pathlib import Path

import table
import verdict

COLOURS = {"faster": "#1b7f5c", "slower": "#b5483a", "equal": "#9a9a9a"}
PEOPLE, FASTEST = "#b8cfe0", "#1f4e79"  # of the headline: as people write it, the fastest alternative
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200)
LINES = ("C0", "C1", "C3", "C4", "C5", "C6", "C7", "C8")  # of alternatives; ganfast's is green
HEADLINE = (
    "critic wgan-gp conv", "critic wgan-gp resnet", "critic r1 conv", "dcgan", "pairwise_l1", "sigmoid_bce",
    "around_the_critic", "batch_norm_act",
)  # fmt: skip


def _axes(width, height, **options):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained", **options)
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    figure.clear()


def _ratios(axes, low: float, high: float) -> None:
    """A logarithmic axis of ratios, and the line at 1."""
    axes.set_xscale("log")
    axes.set_xlim(min(low / 1.05, 0.8), high * 1.35)
    near = (0.75, 1.5) if high > 30 else ()  # would touch 1
    ticks = [t for t in TICKS if axes.get_xlim()[0] <= t <= axes.get_xlim()[1] and t not in near]
    axes.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)


def _errors(rows: list[dict]) -> list[list[float]]:
    pairs = [(row["ratio"] - row["ratio_quartiles"][0], row["ratio_quartiles"][1] - row["ratio"]) for row in rows]
    return [list(side) for side in zip(*pairs)]


# --- README -----------------------------------------------------------------------------------------------------------


def chosen(rows: dict) -> list[tuple[str, list[dict]]]:
    """(group, alternatives) of each kind in HEADLINE, operators with their derivative, fp32.

    The case that stands beside most alternatives, and of these the largest.
    """
    largest: dict = {}
    for group, members in table.groups(verdict.good(rows)).items():
        others = verdict.alternatives(members)
        kind = next((k for k in HEADLINE if group == k or group.startswith(k + " ")), None)
        if not others or kind is None or " bf16 " in group or re.search(" (forward|double) on", group):
            continue
        found = (len(others), members[0]["floor"], group, others)
        largest[kind] = max(largest.get(kind, found), found, key=lambda one: one[:2])
    return [largest[kind][2:] for kind in HEADLINE if kind in largest]


def headline(rows: dict, machine: str, path: Path) -> bool:
    """Bars for each step and operator: PyTorch as people write it and the fastest alternative, over ganfast's time."""
    cases = chosen(rows)
    if not cases:
        return False
    figure, axes = _axes(8.5, 1.5 + 0.62 * len(cases))
    names, top = [], 1.0
    for i, (group, others) in enumerate(cases):
        what, case = verdict.title(group)
        case = (
            case.replace(" batch", ", batch")
            .replace(" fp32", ", fp32")
            .replace("backward", "forward and backward")
            .replace("channels_last ", "")
        )
        names.append(f"{what}\n{case}")
        plain = next((row for row in others if row["row"] in verdict.PLAIN), others[0])
        bars = ((plain, i - 0.19, PEOPLE), (others[0], i + 0.19, FASTEST))
        for row, y, colour in bars if plain is not others[0] else ((plain, i, FASTEST),):
            axes.barh(y, row["ratio"] - 1, 0.36, left=1, color=colour, xerr=_errors([row]),
                      error_kw={"elinewidth": 1, "ecolor": "#444444"})  # fmt: skip
            right = max(row["ratio_quartiles"][1], 1)
            axes.annotate(f"{row['ratio']:.0f}×" if row["ratio"] >= 9.95 else f"{row['ratio']:.2f}×", (right, y),
                          xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)  # fmt: skip
            axes.annotate(verdict.called(row), (right, y), xytext=(42, 0), textcoords="offset points", va="center",
                          fontsize=7.5, color="#666666")  # fmt: skip
            top = max(top, right)
    axes.set_yticks(range(len(cases)), names, fontsize=8.5)
    axes.invert_yaxis()
    _ratios(axes, min(row["ratio_quartiles"][0] for _, others in cases for row in others), top * 3.5)
    axes.set_xlabel("how many times as long it takes without ganfast (1×: no difference)")
    axes.set_title(f"ganfast's speed-up on {machine}", fontsize=10, loc="left")
    for colour, what in ((PEOPLE, "over PyTorch as people write it"), (FASTEST, "over the fastest that was measured")):
        axes.barh(0, 0, color=colour, label=what)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    _save(figure, path)
    return True


# --- docs/benchmarks.md -----------------------------------------------------------------------------------------------


def steps(rows: dict, title: str, path: Path) -> bool:
    """One bar for each alternative of each whole step: its time over ganfast's, with quartiles."""
    found = {g: m for g, m in table.groups(verdict.good(rows)).items() if verdict.is_step(m[0])}
    bars = [row for _, members in sorted(found.items()) for row in verdict.alternatives(members)]
    if not bars:
        return False
    figure, axes = _axes(9.5, 1.4 + 0.24 * len(bars))
    kinds = [verdict.verdict(row) for row in bars]
    axes.barh(range(len(bars)), [row["ratio"] - 1 for row in bars], left=1, color=[COLOURS[k] for k in kinds],
              xerr=_errors(bars), error_kw={"elinewidth": 1, "ecolor": "#333333"})  # fmt: skip
    labels = [f"{', '.join(verdict.title(row['group']))}: {verdict.called(row)}" for row in bars]
    axes.set_yticks(range(len(bars)), labels, fontsize=7.5)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    _ratios(axes, min(row["ratio_quartiles"][0] for row in bars), max(row["ratio_quartiles"][1] for row in bars))
    axes.set_xlabel("time over ganfast's; red: ganfast is slower, grey: neither; lines: quartiles", loc="right")
    axes.set_title(f"Whole steps, {title}", fontsize=10)
    _save(figure, path)
    return True


def operators(rows: dict, title: str, path: Path) -> bool:
    """One dot for each case of an operator: the time of its fastest alternative over ganfast's."""
    dots = [row for row in verdict.fastest(rows) if not verdict.is_step(row)]
    if not dots:
        return False
    lines: dict = {}
    for row in sorted(dots, key=lambda row: row["group"]):
        which = re.search(r"\b(forward|backward|double|training|evaluation|penalised)\b", row["group"])
        what = verdict.title(row["group"])[0] + (f": {which[0]}" if which else "")
        lines.setdefault(what, []).append(row)
    figure, axes = _axes(9, 1.5 + 0.3 * len(lines))
    for y, members in enumerate(lines.values()):
        for row in members:
            axes.plot(row["ratio_quartiles"], [y, y], color=COLOURS[verdict.verdict(row)], linewidth=1, alpha=0.5)
            axes.plot(row["ratio"], y, "o", markersize=5, color=COLOURS[verdict.verdict(row)], alpha=0.8)
    axes.set_yticks(range(len(lines)), [f"{what} ({len(members)})" for what, members in lines.items()], fontsize=8)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    _ratios(axes, min(row["ratio_quartiles"][0] for row in dots), max(row["ratio_quartiles"][1] for row in dots))
    axes.grid(axis="x", linewidth=0.3)
    axes.set_xlabel("time of the fastest alternative over ganfast's; a dot is a shape and dtype; lines: quartiles")
    axes.set_title(f"Operators, {title}", fontsize=10)
    _save(figure, path)
    return True


def roofline(rows: dict, calibration: dict | None, title: str, path: Path) -> bool:
    """Operations a second over operations a byte of ganfast's rows, under the measured ceilings."""
    points = [r for r in verdict.good(rows).values() if r["row"] == "ganfast" and r["bytes"] and r["operations"]]
    if not points or not calibration:
        return False
    figure, axes = _axes(8.5, 5)
    x = [row["operations"] / row["bytes"] for row in points]
    span = [min(x) / 2, max(*x, 10) * 4]
    for i, (name, rate) in enumerate(calibration["matmul"].items()):
        ridge = rate / calibration["copy"]
        xs = [span[0], min(max(ridge, span[0]), span[1]), span[1]]
        axes.plot(xs, [min(i * calibration["copy"], rate) / 1e9 for i in xs], "-", linewidth=1, color="black",
                  alpha=1 - 0.2 * i)  # fmt: skip
        axes.annotate(name, (span[1], rate / 1e9), fontsize=8, xytext=(-4, 3), textcoords="offset points", ha="right")
    kinds: dict = {}
    for row in points:
        kinds.setdefault(verdict.title(row["group"])[0], []).append(row)
    for i, (what, members) in enumerate(sorted(kinds.items())):
        axes.scatter([r["operations"] / r["bytes"] for r in members],
                     [r["operations"] / r["seconds"] / 1e9 for r in members], s=22, zorder=3, label=what,
                     color=f"C{i % 10}", marker="os^"[i // 10])  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="10⁹ operations a second")
    figure.suptitle(f"ganfast's rows under the ceilings measured, {title}", fontsize=10, x=0.02, ha="left")
    figure.legend(fontsize=7, loc="outside right center", frameon=False)
    _save(figure, path)
    return True


def batches(rows: dict) -> dict:
    """step → row → [(batch, samples a second)] of what was measured at two batches or more."""
    found: dict = {}
    for row in verdict.good(rows).values():
        size = re.search(r" batch (\d+)", row["group"])
        if size:
            what = ", ".join(verdict.title(row["group"].replace(size[0], "")))
            points = found.setdefault(what, {}).setdefault(row["row"], [])
            points.append((int(size[1]), int(size[1]) / row["seconds"]))
    several = {what: {row: sorted(p) for row, p in lines.items() if len(p) > 1} for what, lines in found.items()}
    return {what: lines for what, lines in several.items() if lines}


def scaling(rows: dict, title: str, path: Path) -> bool:
    """Samples a second over the batch, a picture for each step."""
    found = batches(rows)
    if not found:
        return False
    columns = min(len(found), 2)
    height = -(-len(found) // columns)
    figure, grid = _axes(4.6 * columns, 0.6 + 3.1 * height, nrows=height, ncols=columns, squeeze=False)
    names = sorted({row for lines in found.values() for row in lines} - {"ganfast"})
    for axes, (what, lines) in zip(grid.flat, sorted(found.items())):
        for row, points in sorted(lines.items()):
            axes.plot(*zip(*points), "-" if row in verdict.OURS else "--", marker="o", markersize=4, linewidth=1.3,
                      color=COLOURS["faster"] if row == "ganfast" else LINES[names.index(row)],
                      label=verdict.ROWS.get(row, row))  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="samples a second")
        ticks = sorted({batch for points in lines.values() for batch, _ in points})
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="both", labelsize=7)
        axes.xaxis.minorticks_off()
        axes.set_title(what, fontsize=9)
        axes.legend(fontsize=7, frameon=False)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    figure.suptitle(f"How steps scale with the batch, {title}", fontsize=10)
    _save(figure, path)
    return True
