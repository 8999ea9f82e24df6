"""Curves and bars as inline SVG."""

import json
import math
from dataclasses import dataclass
from html import escape

from ganfast.report.tables import number

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 352, 8, 186  # of the frame
BUCKETS = 240  # points of a curve at most; the band behind it reaches from each bucket's least to its greatest
COLOURS = 4  # --c0 … --c3 of style.py


@dataclass(frozen=True)
class Line:
    label: str
    steps: list[float]
    values: list[float]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count``."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= 0.999 * raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)] if last > first else ticks(low, high, 2 * count)


def buckets(line: Line) -> list[tuple[float, float, float, float]]:
    """(last step, mean, least, greatest) of at most BUCKETS runs of equal length."""
    size = -(-len(line.steps) // BUCKETS)
    parts = [(line.steps[k : k + size], line.values[k : k + size]) for k in range(0, len(line.steps), size)]
    return [(steps[-1], sum(values) / len(values), min(values), max(values)) for steps, values in parts]


def limits(lines: list[Line]) -> tuple[float, float]:
    """The range of values to draw: all of them, unless a hundredth at either end would dwarf the rest."""
    values = sorted(value for line in lines for value in line.values)
    cut = -(-len(values) // 100) if len(values) >= 20 else 0
    low, high = values[0], values[-1]
    inner_low, inner_high = values[cut], values[-1 - cut]
    spare = (inner_high - inner_low) or abs(inner_high) or 1.0
    low = low if low >= inner_low - spare else inner_low - 0.1 * spare
    high = high if high <= inner_high + spare else inner_high + 0.1 * spare
    size = max(abs(low), abs(high))
    size = size if size > 1e-30 else 1.0
    if high - low < 1e-9 * size:  # a constant, to rounding
        low, high = low - size / 2, high + size / 2
    if 0 < low < 0.4 * high:  # near enough to zero to start there
        low = 0.0
    margin = 0.04 * (high - low)
    return low - (margin if low else 0), high + margin


class Frame:
    """From steps and values to the places where they are drawn."""

    def __init__(self, lines: list[Line]):
        self.low, self.high = limits(lines)
        self.first, self.last = min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines)

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / ((self.last - self.first) or 1) * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        inside = max(min(value, self.high), self.low)
        return TOP + (self.high - inside) / (self.high - self.low) * (BOTTOM - TOP)

    def axes(self) -> str:
        rows = rulers([(self.y(value), number(value)) for value in ticks(self.low, self.high)])
        steps = ticks(self.first, self.last, 3) if self.last > self.first else [self.first]
        return rows + "".join(
            f'<text x="{self.x(step):.1f}" y="{HEIGHT - 6}" '
            f'text-anchor="{"end" if self.x(step) > RIGHT - 16 else "middle"}">{number(step)}</text>'
            for step in steps
        )

    def curve(self, line: Line, colour: str) -> tuple[str, dict]:
        """(its drawing, what the script reads off it)."""
        points = buckets(line)
        places = [(self.x(step), self.y(mean)) for step, mean, _, _ in points]
        drawn = f'<path class="line" {colour} d="{path(places)}"/>'
        if len(points) == 1:
            drawn += f'<circle class="dot" {colour} cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"/>'
        if len(points) < len(line.steps):
            edge = [(self.x(p[0]), self.y(p[3])) for p in points] + [(self.x(p[0]), self.y(p[2])) for p in points[::-1]]
            drawn = f'<path class="band" {colour} d="{path(edge)}Z"/>' + drawn
        read = {"x": [round(x, 1) for x, _ in places], "s": [number(p[0]) for p in points]}
        return drawn, {**read, "v": [number(p[1]) for p in points]}


def rulers(rows: list[tuple[float, str]]) -> str:
    """Horizontal lines at these heights, with their labels."""
    return "".join(
        f'<path class="ruler" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'
        for y, label in rows
    )


def path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def colour_of(k: int) -> str:
    return f'style="--c:var(--c{k % COLOURS})"'


def figure(title: str, legend: list[tuple[str, str]], summary: str, drawn: str, note: str = "", data: str = "") -> str:
    """``legend`` has labels and last values; ``summary`` is for those who cannot see the drawing."""
    items = "".join(
        f"<li {colour_of(k)}>{escape(label)}{f' <b>{value}</b>' if value else ''}</li>"
        for k, (label, value) in enumerate(legend)
    )
    return (
        f'<figure class="chart"><figcaption><h3>{escape(title)}</h3><ul class="legend">{items}</ul></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(summary)}"{data}>{drawn}</svg>'
        + (f'<p class="note">{escape(note)}</p>' if note else "")
        + "</figure>"
    )


def chart(title: str, lines: list[Line]) -> str:
    """``lines`` over steps, their last values in the legend."""
    frame = Frame(lines)
    curves = [frame.curve(line, colour_of(k)) for k, line in enumerate(lines)]
    cross = f'<g class="cross"><path d="M0 {TOP}V{BOTTOM}"/><text y="{TOP + 4}"></text></g>'
    summary = "; ".join(
        f"{line.label} from {number(line.values[0])} to {number(line.values[-1])}, "
        f"between {number(min(line.values))} and {number(max(line.values))}"
        for line in lines
    )
    values = [value for line in lines for value in line.values]
    beyond = sum(not frame.low <= value <= frame.high for value in values)
    note = f"{beyond} of {len(values):,} values lie outside the frame: {number(min(values))} to {number(max(values))}."
    return figure(
        title,
        [(line.label, number(line.values[-1])) for line in lines],
        f"{title}, steps {number(frame.first)} to {number(frame.last)}: {summary}.",
        frame.axes() + "".join(drawn for drawn, _ in curves) + cross,
        note if beyond else "",
        f' data-lines="{escape(json.dumps([read for _, read in curves], separators=(",", ":")))}"',
    )


def bars(title: str, groups: list[tuple[str, list[float]]]) -> str:
    """Shares in [0, 1] as percent: for each place in the lists a bar of each group."""
    count, high = len(groups[0][1]), max(max(values) for _, values in groups) or 1.0
    slot = (RIGHT - LEFT) / count
    width = 0.8 * slot / len(groups)

    def y(share):
        return BOTTOM - share / high * (BOTTOM - TOP)

    drawn = [rulers([(y(share), f"{100 * share:.3g} %") for share in ticks(0, high)])]
    for k, (_, values) in enumerate(groups):
        drawn += [
            f'<rect class="bar" {colour_of(k)} x="{LEFT + (i + 0.1) * slot + k * width:.1f}" y="{y(share):.1f}" '
            f'width="{max(width - 1, 0.5):.1f}" height="{BOTTOM - y(share):.1f}"/>'
            for i, share in enumerate(values)
        ]
    drawn += [
        f'<text x="{LEFT + (i + 0.5) * slot:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{i}</text>'
        for i in range(0, count, -(-count // 12))
    ]
    summary = "; ".join(f"{name}: {', '.join(f'{100 * share:.1f} %' for share in values)}" for name, values in groups)
    return figure(title, [(name, "") for name, _ in groups], f"{title}. {summary}.", "".join(drawn))
