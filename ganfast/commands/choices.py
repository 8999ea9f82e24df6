"""What a person writes for seeds, classes and a grid."""

import difflib
import re
from itertools import chain

from ganfast.errors import InputError

GROUP = 16  # seeds in a group of --arithmetic: each is shown


def parse_seeds(text: str) -> list[range]:
    """``0-3,9`` → [range(0, 4), range(9, 10)]: a million seeds take no memory."""
    seeds = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            seeds.append(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        raise InputError(f"{text!r} is not a list of seeds: give numbers and ranges as in 0-63 or 1,5,9-12.") from None
    if not all(seeds):
        raise InputError(f"{text!r} has a range without a seed: give numbers and ranges as in 0-63 or 1,5,9-12.")
    if max(each[-1] for each in seeds) >= 2**63:
        raise InputError(f"{text!r} has a seed of 2^63 or more: give smaller ones.")
    return seeds


def parse_classes(text: str, names: tuple[str, ...]) -> list[int]:
    """``3,7``, ``0-4``, ``cat,dog`` → numbers of classes in this order, each once; a name goes before a number."""
    numbers = {**{str(k): k for k in range(len(names))}, **{name: k for k, name in reversed([*enumerate(names)])}}
    found: list[int] = []
    for part in map(str.strip, text.split(",")):
        ends = [(part, part)] + [(part[:k].strip(), part[k + 1 :].strip()) for k, c in enumerate(part) if c == "-"]
        spans = [range(numbers[a], numbers[b] + 1) for a, b in ends if a in numbers and b in numbers]
        if not spans or not spans[0]:
            near = [] if part.isdecimal() else difflib.get_close_matches(part, names, 1)
            known = ", ".join(names[:10]) + ", …" * (len(names) > 10)
            hint = (
                f"did you mean {near[0]}?" if near else f"give numbers from 0 to {len(names) - 1}, or names: {known}."
            )
            raise InputError(f"--classes {text}: {part!r} is not a class: {hint}")
        found += spans[0]
    return list(dict.fromkeys(found))


def parse_attributes(text: str, names: tuple[str, ...]) -> list[tuple[str, list[tuple[int, float]]]]:
    """``hair=black,beard=0,hair=blond+age=0.5`` → [("hair=black", [(0, 1.0)]), …]: what each output switches to what.

    An attribute alone is switched to 1.
    """
    found = []
    for part in map(str.strip, text.split(",")):
        switches = []
        for each in map(str.strip, part.split("+")):
            name, _, value = (each, "", "1") if each in names else each.rpartition("=")
            try:
                switches.append((names.index(name), float(value)))
            except ValueError:
                raise InputError(
                    f"--attributes {text}: {each!r} is not an attribute: give some of {', '.join(names)}, with a "
                    f"number as in {names[0]}=0.5 or alone, joined by + for one output."
                ) from None
        found.append((part, switches))
    return found


def parse_grid(text: str) -> tuple[int, int]:
    """``8x4`` → (columns, rows)."""
    columns, x, rows = text.lower().partition("x")
    if not (x and columns.isdecimal() and rows.isdecimal() and int(columns) and int(rows)):
        raise InputError(f"--grid {text!r} is not a grid: give columns x rows, as in 8x8.")
    return int(columns), int(rows)


def parse_arithmetic(text: str) -> list[tuple[int, list[int]]]:
    """``1,2,3 - 4-6 + 7`` → [(1, [1, 2, 3]), (−1, [4, 5, 6]), (1, [7])]: signs and groups of seeds."""
    first, *others = re.split(r"\s([+-])\s", text)
    terms = [("+", first), *zip(others[::2], others[1::2])]
    try:
        groups = [(1 if sign == "+" else -1, parse_seeds(group)) for sign, group in terms]
    except InputError:
        groups = []
    if len(groups) < 2:
        raise InputError(
            f"--arithmetic {text!r} is not two groups of seeds or more: give seeds as in 1,5,9-12 and, between spaces, "
            '+ or -, as in "1,2,3 - 4,5,6 + 7,8,9".'
        )
    for _, seeds in groups:
        if (count := sum(map(len, seeds))) > GROUP:
            raise InputError(f"--arithmetic {text!r} has a group of {count} seeds: give at most {GROUP}.")
    return [(sign, [*chain(*seeds)]) for sign, seeds in groups]
