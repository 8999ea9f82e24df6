"""Which figures are drawn together."""

from collections.abc import Iterable


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """Family → its figures, in the order of the first: names that differ in their last word, as loss_d and loss_g."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition("_")[0] or name, []).append(name)
    named: dict[str, list[str]] = {}
    for family, members in found.items():  # code_error alone is the family of code_error_real
        named.setdefault(members[0] if len(members) == 1 else family, []).extend(members)
    return named


def headline(row: dict) -> tuple[str, float, float | None] | None:
    """(name, value, floor) of the score that a report's curve shows, by its fields; None of one that has none."""
    if row.get("values"):
        name, value = next(iter(row["values"].items()))
        return name, value, row.get("floors", {}).get(name)
    if "modes" in row:
        return "modes", row["modes"], row.get("floor_modes", row.get("total"))
    return None
