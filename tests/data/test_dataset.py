"""A data set of columns: what it accepts, says of them and refuses; what a recipe finds in it."""

import pytest
import torch

from ganfast.data import Attributes, Audio, Clips, Dataset, Images, Labels, Points, Spec, Tokens, match
from ganfast.errors import InputError

IMAGES = torch.zeros(3, 16, 16, 1, dtype=torch.uint8)
LABELS = torch.tensor([2, 0, 1])
EACH = {
    "images": IMAGES,
    "targets": torch.zeros(3, 16, 16, 3, dtype=torch.uint8),
    "points": torch.zeros(3, 2),
    "labels": LABELS,
    "attributes": torch.zeros(3, 4),
    "tokens": torch.zeros(3, 5, dtype=torch.int64),
    "audio": torch.zeros(3, 6, dtype=torch.int16),
    "clips": torch.zeros(3, 2, 8, 9, 3, dtype=torch.uint8),
}


def test_the_spec_of_each_column():
    data = Dataset("all", **EACH)
    assert {name: data.spec(name) for name in EACH} == {
        "images": Spec("images", (1, 16, 16)),
        "targets": Spec("images", (3, 16, 16)),
        "points": Spec("points", (2,)),
        "labels": Spec("labels", (), ("0", "1", "2")),
        "attributes": Spec("attributes", (4,)),
        "tokens": Spec("tokens", (5,)),
        "audio": Spec("audio", (1, 6)),
        "clips": Spec("clips", (3, 2, 8, 9)),
    }
    assert (data.kind, data.shape, len(data), data.num_classes) == ("images", (1, 16, 16), 3, 3)
    assert all(Spec.from_json(data.spec(name).to_json()) == data.spec(name) for name in EACH)


def test_a_recipe_finds_its_columns():
    data = Dataset("all", **EACH, names={"labels": ("a", "b", "c")})
    columns = {
        "x": Images(), "t": Images("targets"), "p": Points(), "y": Labels(), "a": Attributes(), "w": Tokens(),
        "s": Audio(), "c": Clips(),
    }  # fmt: skip
    found = match("everything", columns, [data])
    assert list(found) == list(columns) and found["y"].names == ("a", "b", "c") and found["t"].shape == (3, 16, 16)
    two = match("cyclegan", {"a": Images(), "b": Images(source=1)}, [data, Dataset("other", images=IMAGES)])
    assert two["b"].shape == (1, 16, 16)


@pytest.mark.parametrize(
    "columns, sources, words",
    [
        ({"a": Images(), "b": Images(source=1)}, 1, "needs two data sets, got one: .*--data-b"),
        ({"a": Images()}, 2, r"uses one data set, got two: leave out --data-b \(some\)"),
        ({"a": Images(), "y": Labels()}, 1, r"needs labels, and some has none \(because\): put each class"),
        ({"a": Images(), "t": Images("targets")}, 1, "needs targets, and some has none: give pairs"),
    ],
)
def test_a_recipe_that_lacks_a_column(columns, sources, words):
    data = Dataset("some", images=IMAGES, absent={"labels": "because"})
    with pytest.raises(InputError, match=f"^recipe r {words}"):
        match("r", columns, [data] * sources)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({}, "needs a column: images, targets"),
        ({"pictures": IMAGES}, "pictures is not a column: give images"),
        ({"images": IMAGES.float()}, r"got float32 \[3, 16, 16, 1\], needs uint8 with 4 axes"),
        ({"images": IMAGES[0]}, "needs uint8 with 4 axes"),
        ({"audio": torch.zeros(3, 6, dtype=torch.int32)}, "needs int16 or float32 with 2 axes"),
        ({"images": IMAGES, "labels": LABELS[:2]}, "got 2 rows beside 3 of the first column"),
        ({"images": IMAGES, "labels": LABELS - 1}, "the label -1 is negative"),
        ({"labels": LABELS, "names": {"labels": ("a", "b")}}, "got 2 names and the class 2"),
        ({"attributes": torch.zeros(3, 4), "names": {"attributes": ("a",)}}, "got 1 names for 4 attributes"),
    ],
)
def test_what_is_refused(arguments, words):
    with pytest.raises(InputError, match=f"^d: .*{words}"):
        Dataset("d", **arguments)


def test_columns_that_are_none_are_left_out_and_what_is_said_of_others_is_dropped():
    data = Dataset("d", images=IMAGES, labels=None, attributes=torch.zeros(3, 1), absent={"attributes": "x"})
    assert list(data.columns) == ["images", "attributes"] and data.absent == {} and data.labels is None
    assert Dataset("d", images=IMAGES, names={"labels": ("a",)}).names == {}
    assert Dataset("d", labels=LABELS, names={"labels": list("abcd")}).num_classes == 4


def test_every_column_counts_in_the_fingerprint():
    first = Dataset("d", **EACH).fingerprint()
    for name, values in EACH.items():
        if name != "labels":
            assert Dataset("d", **(EACH | {name: values + 1})).fingerprint() != first
    assert Dataset("d", **(EACH | {"labels": LABELS.flip(0)})).fingerprint() != first
    assert Dataset("other name", **EACH).fingerprint() == first
