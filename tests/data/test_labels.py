"""Labels in every form: which column they become, how classes are numbered and named, and what cannot be used."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganfast.data.labels import attributes, from_array, from_folders, renumbered
from ganfast.data.tables import read_dataset_json
from ganfast.errors import InputError


def of(content, paths):
    """What dataset.json with this content says of the files."""
    found = read_dataset_json(content, "dataset.json").find([(path,) for path in paths])
    return found.companions(np.arange(len(paths)))


def from_json(labels, **entries):
    paths = [f"{k}.png" for k in range(len(labels))]
    content = {"labels": list(map(list, zip(paths, labels))), **entries}
    return of(json.dumps(content).encode(), paths)


@pytest.mark.parametrize(
    "labels, classes, names",
    [
        (np.array([0, 2, 1]), [0, 2, 1], "0 1 2"),
        (np.array([3, 1, 1], np.uint8), [1, 0, 0], "1 3"),
        (np.array([20231107, 4, 4], np.uint64), [1, 0, 0], "4 20231107"),
        (np.array([-1, 1, -1], ">i2"), [0, 1, 0], "-1 1"),
        (np.array([[1], [0], [1]]), [1, 0, 1], "0 1"),
        (np.array([True, False, True]), [1, 0, 1], "0 1"),
        (np.array(["dog", "cat", "dog"]), [1, 0, 1], "cat dog"),
        (np.array([["dog"], ["cat"], ["ü"]]), [1, 0, 2], "cat dog ü"),
        (np.array([b"dog", b"cat", "ü".encode()]), [1, 0, 2], "cat dog ü"),
        (np.array([2**64 - 1, 0, 5], np.uint64), [2, 0, 1], f"0 5 {2**64 - 1}"),
        (np.eye(4)[[3, 0, 1]], [3, 0, 1], "0 1 2 3"),
        (np.eye(2, dtype=np.int64)[[1, 1, 1]], [1, 1, 1], "0 1"),
        (np.eye(3, dtype=bool)[[2, 0, 0]], [2, 0, 0], "0 1 2"),
        (np.eye(3, dtype=np.float16)[[2, 0, 0]], [2, 0, 0], "0 1 2"),
    ],
)
def test_arrays_that_are_classes(labels, classes, names):
    found = from_array(labels, 3)
    assert found.columns["labels"].tolist() == classes and found.columns["labels"].dtype == np.int64
    assert found.names == {"labels": tuple(names.split())} and found.absent == {}


@pytest.mark.parametrize(
    "labels, values",
    [
        (np.array([0.0, 1.0, 2.5]), [[0], [1], [2.5]]),
        (np.array([[0.0], [1.0], [2.0]], np.float16), [[0], [1], [2]]),
        (np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0]]), [[1, 1, 0], [0, 1, 0], [1, 0, 0]]),  # two ones
        (np.array([[0, 0], [0, 1], [1, 0]], bool), [[0, 0], [0, 1], [1, 0]]),  # none
        (np.array([[0, 2], [2, 0], [0, 2]]), [[0, 2], [2, 0], [0, 2]]),
        (np.array([[-1, 1], [1, -1], [1, 1]], ">f8"), [[-1, 1], [1, -1], [1, 1]]),
    ],
)
def test_arrays_that_are_attributes(labels, values):
    found = from_array(labels, 3)
    assert found.columns["attributes"].tolist() == values and found.columns["attributes"].dtype == np.float32
    assert found.names == {"attributes": tuple(map(str, range(len(values[0]))))}
    assert list(found.columns) == ["attributes"] and "attributes" in found.absent["labels"]


@pytest.mark.parametrize(
    "labels, reason",
    [
        (np.zeros(2, np.int64), "2 labels for 3 samples"),
        (np.zeros((3, 2, 2)), r"shape \[3, 2, 2\]"),
        (np.zeros(()), r"shape \[\]"),
        (np.zeros((3, 0)), r"shape \[3, 0\]"),
        (np.zeros(3, np.complex64), "complex64"),
        (np.zeros(3, "M8[s]"), "datetime64"),
        (np.array([["a", "b"]] * 3), "strings of shape"),
        (np.array([0, np.nan, 1]), "NaN or infinity"),
        (np.array([0, np.inf, 1]), "NaN or infinity"),
        (np.array([0, 1e300, 1]), "NaN or infinity"),
    ],
)
def test_arrays_that_cannot_be_used(labels, reason):
    found = from_array(labels, 3)
    assert found.columns == found.names == {} and set(found.absent) == {"labels", "attributes"}
    with pytest.raises(InputError, match=reason):
        raise InputError(found.absent["labels"])


@pytest.mark.parametrize(
    "labels, names, classes",
    [
        ([0, 3, 1], "abcd", [0, 3, 1]),  # by number; a class without a sample stays
        ([1, 2, 3], "abc", [0, 1, 2]),  # one for each
        ([4, 20231107, 4], "ab", [0, 1, 0]),
        ([[0, 1, 0], [1, 0, 0], [1, 0, 0]], "abc", [1, 0, 0]),
    ],
)
def test_given_names_of_classes(labels, names, classes):
    for found in (from_array(np.array(labels), 3, tuple(names)), from_json(labels, names=list(names))):
        assert found.columns["labels"].tolist() == classes and found.names == {"labels": tuple(names)}


def test_other_words_for_names():
    assert from_json([1, 0], classes=["a", "b"]).names == {"labels": ("a", "b")}
    assert from_json([1, 0], classes=2, names=[7, 8]).names == {"labels": ("7", "8")}
    assert from_json(["x", "y"], names=["a", "b", "c"]).names == {"labels": ("x", "y")}  # strings are names themselves
    assert from_json([[0.5, 1.0]], names=["a", "b"]).names == {"attributes": ("a", "b")}


@pytest.mark.parametrize("labels", [[1, 2, 5], [-1, 0, 1], [[0, 1, 0, 0]] * 3, [[0.5, 1, 0, 0]] * 3, [0.5, 1, 2]])
def test_names_that_do_not_fit(labels):
    assert from_json(labels, names=["a", "b"]).absent["labels"].startswith("2 names for ")


@pytest.mark.parametrize(
    "labels, column, values",
    [
        ([4, 20231107, 4], "labels", [0, 1, 0]),
        ([True, False, True], "labels", [1, 0, 1]),
        (["b", "a", ""], "labels", [2, 1, 0]),
        ([[1], [3], [1]], "labels", [0, 1, 0]),
        ([[0, 1], [1, 0], [0.0, 1.0]], "labels", [1, 0, 1]),
        ([1, 0.5, 2], "attributes", [[1], [0.5], [2]]),
        ([[1, 2], [3, 4], [5, 6]], "attributes", [[1, 2], [3, 4], [5, 6]]),
        ([[True, True], [False, True], [True, False]], "attributes", [[1, 1], [0, 1], [1, 0]]),
    ],
)
def test_json_labels(labels, column, values):
    assert from_json(labels).columns[column].tolist() == values


@pytest.mark.parametrize(
    "labels, reason",
    [
        ([0, "a", 1], "dataset.json has labels of the types int, str"),
        ([0, [1], 1], "dataset.json has labels of the types int, list"),
        ([{}, {}, {}], "dataset.json has labels of the types dict"),
        ([[1, 2], [1, 2, 3], [1]], "dataset.json has labels of length 1 and of length 3"),
        ([[1, "a"], [1, 2], [1, 2]], "dataset.json has labels of the types int, str"),
        ([[[1], [2]]] * 3, "dataset.json has labels of the types list"),
        ([[], [], []], "labels have the shape [3, 0]"),
        ([2**70, 0, 1], "dataset.json has a label beyond 64 bits"),
        ([10**400, 0.5, 1], "dataset.json has a label beyond 64 bits"),
    ],
)
def test_json_labels_that_cannot_be_used(labels, reason):
    found = from_json(labels)
    assert found.columns == {} and found.absent["labels"].startswith(reason)


def test_entries_may_say_more_than_the_label():
    content = b'{"labels": [["a.png", 3, "train"], ["b.png", 1, "test"]]}'
    assert of(content, ["b.png", "a.png"]).columns["labels"].tolist() == [0, 1]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_names_and_numbers_say_the_same(ids):
    for classes, names in (
        (from_json(ids).columns["labels"], from_json(ids).names["labels"]),
        renumbered(torch.tensor(ids)),
    ):
        assert [int(names[k]) for k in classes.tolist()] == ids
        assert sorted(set(classes.tolist())) == list(range(len(names))) and list(names) == sorted(set(names), key=int)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=12,
)


@given(ANYTHING, ANYTHING)
def test_whatever_the_file_says_it_is_columns_or_a_reason(labels, names):
    for content in (labels, {"labels": labels}, {"labels": labels, "names": names}, {"labels": {"a": labels}}):
        found = of(json.dumps(content).encode(), ["a"])
        assert len(found.columns) <= 1 and not found.columns.keys() & found.absent.keys()
        assert all(len(values) == 1 for values in found.columns.values()) and found.columns.keys() == found.names.keys()


def test_folders():
    found = from_folders(["b/1.png", "a/x/2.png", "b/3.png"])
    assert found.columns["labels"].tolist() == [1, 0, 1] and found.names == {"labels": ("a", "b")}


@pytest.mark.parametrize("values", [np.zeros((2, 2, 2)), np.zeros((2, 0)), np.zeros(2, "U1"), np.array([np.nan])])
def test_what_are_no_attributes(values):
    with pytest.raises(InputError):
        attributes(values)


def test_columns_beside_samples_add_up():
    both = from_array(np.array([2, 1]), 2) | from_array(np.array([0.5, 1]), 2)
    assert list(both.columns) == ["labels", "attributes"] and list(both.names) == ["labels", "attributes"]
    assert both.take(np.array([1])).columns["labels"].tolist() == [0]
