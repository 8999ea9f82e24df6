"""Rows of a results file as text: in the terminal after a run, and in docs/benchmarks.md."""

HEAD = ("time", "quartiles", "over ganfast", "quartiles", "bytes", "operations", "floor", "time/floor", "peak memory")


def scaled(value: float, units: tuple, step: float = 1000.0) -> str:
    """Three digits and a unit: scaled(1.5e6, ("B", "kB", "MB")) is "1.50 MB"."""
    unit = units[0]
    for unit in units:  # noqa: B007  the last unit takes what is left
        if abs(value) < step:
            break
        value /= step
    else:
        value *= step
    return f"{value:.3g} {unit}" if abs(value) < 999.5 else f"{value:.0f} {unit}"


def seconds(value: float) -> str:
    return scaled(value * 1e9, ("ns", "µs", "ms", "s"))


def count(value: float) -> str:
    return scaled(value, ("", "k", "M", "G", "T", "P")).strip()


def size(value: float) -> str:
    return scaled(value, ("B", "KiB", "MiB", "GiB"), 1024.0)


def ratio(row: dict) -> str:
    """How many times ganfast's time; its own row says how noisy the machine was."""
    return f"{row['ratio']:.2f}×"


def over_floor(row: dict) -> str:
    """Time over floor; "!" marks what cannot be."""
    return f"{row['over_floor']:.1f}" if not row.get("impossible") else f"{row['over_floor']:.2f} !"


def spread(low: float, high: float, form) -> str:
    return f"{form(low)} – {form(high)}"


def cells(row: dict) -> tuple:
    """One for each of HEAD; what failed has its error in the first."""
    if "error" in row:
        return (f"failed: {row['error']}",) + ("",) * (len(HEAD) - 1)
    return (
        seconds(row["seconds"]), spread(*row["quartiles"], seconds), ratio(row),
        spread(*row["ratio_quartiles"], "{:.2f}".format), size(row["bytes"]), count(row["operations"]),
        f"{seconds(row['floor'])} ({row['limit']})", over_floor(row), size(row["peak_memory"]),
    )  # fmt: skip


def groups(rows: dict) -> dict:
    """Group → its rows, in the order of the names they were measured under."""
    found: dict = {}
    for row in rows.values():
        found.setdefault(row["group"], []).append(row)
    return {
        group: sorted(members, key=lambda row: (row["row"] != "ganfast", row["row"]))
        for group, members in found.items()
    }


def text(rows: dict) -> str:
    """A heading for each group, a line for each row."""
    lines = [("", *HEAD)]
    for group, members in groups(rows).items():
        lines += [(group,), *((f"  {row['row']}", *cells(row)) for row in members)]
    whole = [line for line in lines if len(line) > 1 and not line[1].startswith("failed")]
    widths = [max(map(len, column)) for column in zip(*whole)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() if len(line) > 1 else line[0] for line in lines
    )
