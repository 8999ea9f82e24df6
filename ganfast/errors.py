"""Exceptions that one part of the package raises and another handles."""

import dataclasses
import typing


class InputError(ValueError):
    """What was given cannot be used: one sentence that names the file or option and says what to do.

    The command line prints the sentence and exits with code 2; a program catches it as a ``ValueError``.
    """


class NonFiniteError(ValueError):
    """A network returned infinities or NaN."""


def check_choices(options) -> None:
    """``InputError`` where a field of a dataclass is none of the words that its ``Literal`` lists."""
    for field in dataclasses.fields(options):
        value, kinds = getattr(options, field.name), typing.get_args(field.type) or ()
        literal = field.type if typing.get_origin(field.type) is typing.Literal else None
        literal = literal or next((kind for kind in kinds if typing.get_origin(kind) is typing.Literal), None)
        if literal is None or (value is None and type(None) in kinds):
            continue
        words = typing.get_args(literal)
        if value not in words:
            flag = field.name.replace("_", "-")
            raise InputError(f"{field.name} must be {' or '.join(map(str, words))}, got {value!r} (--{flag}).")
