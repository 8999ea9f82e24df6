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
