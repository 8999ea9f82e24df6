"""Values as text, and tables of them."""

from html import escape

from ganfast.report.facts import is_number


def number(value: float) -> str:
    """At most three significant digits: 0.123, 45.6, 1,234, 1.2 M."""
    size = abs(value)
    if size >= 999_950:
        return f"{value / 1e9:.3g} G" if size >= 999.95e6 else f"{value / 1e6:.3g} M"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}" if size >= 1e-3 else f"{value:.1e}"


def text(value) -> str:
    """A stored value as a person reads it; numbers as they are."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ("×" if all(map(is_number, value)) else ", ").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def rounded(value) -> str:
    """As ``text``, numbers to three digits."""
    return number(value) if is_number(value) else text(value)


def words(name: str) -> str:
    """``step_ms_p50`` → ``Step ms p50``."""
    return (name[:1].upper() + name[1:]).replace("_", " ")


def of_values(values: dict[str, str], bold: dict | None = None) -> str:
    """A table with a row for each value, already text; those named in ``bold`` stand out."""
    rows = []
    for name, value in values.items():
        cell = f"<b>{escape(value)}</b>" if name in (bold or {}) else escape(value)
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td>{cell}</td></tr>')
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def of_rows(names: list[str], rows: list[dict]) -> str:
    """A table with a column for each name; it scrolls sideways on a small screen."""
    head = "".join(f'<th scope="col">{escape(words(name))}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(rounded(row.get(name)))}</td>" for name in names) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="table">{table}</div>'
