"""Data sets that lie in parts: which parts there are by their names, and which one is taken."""

import re
from collections.abc import Iterable

from ganfast.errors import InputError

# the usual parts, the first one first, and how people name them
WORDS = {
    "train": ("train", "training", "trainset", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "testset", "t10k"),
}
BY_WORD = {word: part for part, words in WORDS.items() for word in words}
FOLDER = re.compile(rf"({'|'.join(sorted(BY_WORD, key=len, reverse=True))})[-_ ]?(set|images|imgs|data)?[-_ ]?\d*")


def part_of(name: str) -> str | None:
    """ "train", "val" or "test" where a word of ``name`` says so: ``x_train``, ``t10k-images``, ``Validation``."""
    return next((BY_WORD[word] for word in re.split(r"[^a-z0-9]+", name.lower()) if word in BY_WORD), None)


def without_part(name: str) -> str:
    """``name`` in lower case without the word for its part: ``x`` of ``x_train``."""
    return "_".join(word for word in re.split(r"[^a-z0-9]+", name.lower()) if word and word not in BY_WORD)


def choose(source: str, names: Iterable[str], wanted: str | None) -> tuple[str, list[str]]:
    """(one of ``names``, notes for the person): the one that --split names, else train, val, test."""
    names = list(names)
    if wanted is not None:
        found = [n for n in names if n.lower() == wanted.lower()] or [
            n for n in names if part_of(n) is not None and part_of(n) == part_of(wanted)
        ]
        if len(found) != 1:
            raise InputError(f"{source}: --split {wanted}: its parts are {_listed(names)}; give one of these")
        return found[0], []
    if len(names) == 1:
        return names[0], []
    for part in WORDS:
        found = [name for name in names if part_of(name) == part]
        if len(found) == 1:
            return found[0], [f"took the part {found[0]} of {_listed(names)} (--split takes another)"]
        if found:
            break
    raise InputError(f"{source}: holds {_listed(names)}; choose one with --split")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + ", …" * (len(names) > 12)


def refuse(source: str, wanted: str | None) -> None:
    """InputError where --split is given for a source without parts."""
    if wanted is not None:
        raise InputError(f"{source}: --split {wanted}: it has no parts named train, val or test; leave the option out")


def part_of_folder(name: str) -> str | None:
    """The part that a folder of this name is, where the whole name says so: ``train``, ``Test``, ``val2017``."""
    found = FOLDER.fullmatch(name.lower())
    return BY_WORD[found[1]] if found else None


def refuse_unpaired(source: str, root: str, folders: Iterable[str]) -> None:
    """InputError for trainA, trainB, testA, testB: two sets of images, not classes."""
    words = {word: f for f in folders for word in [f.lower()] if word[-1:] in "ab" and part_of_folder(word[:-1])}
    if {"traina", "trainb"} <= set(words):
        a, b = (f"{source}/{root}{words[word]}" for word in ("traina", "trainb"))
        raise InputError(f"{source}: holds two sets of images; give --data {a} --data-b {b}, or one of them")
