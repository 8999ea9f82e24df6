"""Attributes by name: fields of records, one-hot groups, identities."""

import json

import numpy as np
import pytest
import torch
from data.made import place, png

from ganfast.data import Dataset, open_dataset
from ganfast.data.attributes import groups, of_records, switched
from ganfast.data.derived import make
from ganfast.data.tables import read_celeba, read_dataset_json
from ganfast.errors import InputError

FACES = [
    {"file": "a.png", "identity": 7, "hair": "red", "age": 3, "glasses": True, "beard": None, "smile": "-1"},
    {"file": "b.png", "identity": 7, "hair": "black", "age": 4.5, "glasses": False, "beard": "full", "smile": "1"},
    {"file": "c.png", "identity": 9, "hair": "red", "age": 5, "glasses": True, "beard": "", "smile": "1"},
]


def test_fields_become_numbers_by_what_they_hold():
    names, rows = of_records(FACES, "hair,age,glasses, beard,smile,beard=full")
    assert names == ["hair=black", "hair=red", "age", "glasses", "beard", "smile", "beard=full"]
    assert rows == [[0, 1, 3, 1, 0, 0, 0], [1, 0, 4.5, 0, 1, 1, 1], [0, 1, 5, 1, 0, 1, 0]]


@pytest.mark.parametrize(
    "fields, said",
    [("eyes", "has no field eyes: it has age, beard"), ("hair=blue", "has no hair blue: it has black, red"),
     ("age", "has no age for 1 of 4 files"), ("file", "has 66 values of file, and at most 64")],
)  # fmt: skip
def test_fields_that_cannot_be_used(fields, said):
    many = [{"file": f"{k}.png"} for k in range(66)] if fields == "file" else [*FACES, {"file": "d.png", "hair": "red"}]
    with pytest.raises(InputError, match=said):
        of_records(many, fields)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_records_beside_images(form, tmp_path):
    files = {f"image/{face['file']}": png(k) for k, face in enumerate(FACES)}
    files |= {f"mask/{face['file']}": png(k + 5) for k, face in enumerate(FACES)}
    path = place(tmp_path, form, files | {"dataset.json": json.dumps({"size": 64, "faces": FACES}).encode()})
    if form == "zip":  # the table lies above the images
        data = open_dataset(f"{path}/image", size=16, attributes="hair,beard")
        assert data.names["attributes"] == ("hair=black", "hair=red", "beard")
        assert data.columns["attributes"].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
        assert data.columns["identities"].tolist() == [0, 0, 1] and data.names["identities"] == ("7", "9")
        by_default = open_dataset(f"{path}/image", size=16)
        assert by_default.names["attributes"] == ("age", "glasses", "smile")
        with pytest.raises(InputError, match=r"image: --attributes eyes: dataset.json: has no field eyes"):
            open_dataset(f"{path}/image", attributes="eyes")
    else:
        with pytest.raises(InputError, match=r"--attributes hair: dataset.json has attributes for only 0 of 6 files"):
            open_dataset(str(path), attributes="hair")  # a.png is two files
    with pytest.raises(InputError, match="digits: --attributes chooses fields of a table"):
        open_dataset("digits", attributes="hair")


def test_the_forms_there_were_stay():
    vectors = json.dumps({"labels": [["a.png", [0.5, 2]]], "names": ["u", "v"], "faces": FACES}).encode()
    found = read_dataset_json(vectors, "dataset.json").find([("a.png",)]).companions(np.arange(1))
    assert found.columns["attributes"].tolist() == [[0.5, 2]] and found.names["attributes"] == ("u", "v")
    celeba = b"2\nSmiling Young\na.png -1 1\nb.png 1 1\n"
    for fields, rows in ("", [[-1, 1], [1, 1]]), ("Smiling", [[0], [1]]):
        table = read_celeba(celeba, "list_attr_celeba.txt", fields)
        found = table.find([("a.png",), ("b.png",)]).companions(np.arange(2))
        assert found.columns["attributes"].tolist() == rows


def test_switching_on_leaves_the_rest_of_a_group_what_is_left():
    names = ("hair=black", "hair=red", "beard", "eyes=wide")
    assert groups(names) == {"hair": [0, 1], "beard": [2], "eyes": [3]}
    rows = torch.tensor([[0.0, 1, 0, 1], [0.2, 0.8, 1, 0]])
    assert switched(rows, names, 0).tolist() == [[1, 0, 0, 1], [1, 0, 1, 0]]
    assert torch.allclose(switched(rows, names, 0, 0.25)[0], torch.tensor([0.25, 0.75, 0, 1]))
    assert switched(rows, names, 2).tolist()[0] == [0, 1, 1, 1] and rows[0, 2] == 0


def test_a_part_has_whole_identities():
    columns = {"images": torch.zeros(60, 8, 8, 1, dtype=torch.uint8), "identities": torch.arange(60) // 3}
    train, test = (make(f"part:{which}:", Dataset("s", **columns)) for which in ("train", "test"))
    assert test.columns["identities"].tolist() == [0, 0, 0, 10, 10, 10] and len(train) == 54
