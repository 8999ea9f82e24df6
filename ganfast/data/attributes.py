"""Attributes by name: out of the fields of a table's records, and the one-hot groups that they form.

A name with "=" is that of a value of a field: ``hair=black`` and ``hair=blond``, side by side, are a group of which one
is 1 and the others are 0.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

from torch import Tensor

from ganfast.data.columns import Spec
from ganfast.errors import InputError

MOST = 64  # values of a field that become attributes
BOOLEANS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def of_records(records: Sequence[Mapping[str, object]], fields: str) -> tuple[list[str], list[list[float]]]:
    """(names, numbers of each record) of ``fields`` such as "hair,beard,age".

    A field of strings is a number for each of its values, in alphabetical order: 1 where it is the record's. True and
    false are 1 and 0, numbers stay, but −1 and 1 alone become 0 and 1. Strings that some records lack (null, or empty)
    become 1 where there is one; "beard=full" is that value alone. InputError for fields that are not there or not full.
    """
    columns: dict[str, list[float]] = {}
    for field in filter(None, map(str.strip, fields.split(","))):
        columns |= _of_field(records, field)
    return [*columns], [list(row) for row in zip(*columns.values())]


def _of_field(records: Sequence[Mapping[str, object]], field: str) -> dict[str, list[float]]:
    known = {key for record in records for key in record}
    name, _, value = (field, "", "") if field in known else field.partition("=")
    if name not in known:
        raise InputError(f"has no field {name}: it has {', '.join(sorted(known))}")
    found = [_plain(record.get(name)) for record in records]
    if value:
        column = [float(str(each) == value) for each in found]
        if not any(column):
            raise InputError(f"has no {name} {value}: it has {_listed(found)}")
        return {field: column}
    numbers = [_number(each) for each in found if each is not None]
    if None in numbers:
        if None in found:
            return {field: [float(each is not None) for each in found]}
        values = sorted(set(map(str, found)))
        if len(values) > MOST:
            raise InputError(f"has {len(values)} values of {name}, and at most {MOST} can be attributes")
        return {f"{name}={each}": [float(str(one) == each) for one in found] for each in values}
    if len(numbers) < len(found):
        raise InputError(f"has no {name} for {len(found) - len(numbers)} of {len(found)} files")
    signs = set(numbers) == {-1.0, 1.0}
    return {field: [(each + 1) / 2 if signs else each for each in numbers]}


def _plain(value: object) -> object:
    return None if value is None or (isinstance(value, str) and not value.strip()) else value


def _number(value: object) -> float | None:
    if isinstance(value, str) and value.lower() in BOOLEANS:
        return BOOLEANS[value.lower()]
    try:
        return float(value) if isinstance(value, (bool, int, float, str)) else None
    except ValueError:
        return None


def _listed(values: Sequence[object]) -> str:
    found = sorted({str(value) for value in values if value is not None})
    return ", ".join(found[:12]) + ", …" * (len(found) > 12)


def titles(spec: Spec) -> tuple[str, ...]:
    """The names of attributes, by default their numbers."""
    return spec.names or tuple(map(str, range(spec.shape[0])))


def groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Field → which attributes are its values; an attribute without "=" is a group of its own."""
    found: dict[str, list[int]] = {}
    for field, numbers in groupby(range(len(names)), lambda k: names[k].partition("=")[0]):
        found[field] = [*numbers]
    return found


def switched(rows: Tensor, names: Sequence[str], index: int, value: float = 1.0) -> Tensor:
    """Rows [B, A] with the attribute ``index`` at ``value``, and of its group what is left: (1 − value) times it."""
    (mine,) = (members for members in groups(names).values() if index in members)
    rows = rows.clone()
    rows[:, mine] *= 1 - value
    rows[:, index] = value
    return rows
