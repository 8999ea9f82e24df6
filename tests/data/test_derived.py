"""Sources that are made of another one."""

import pytest
import torch

from ganfast.data import Dataset, open_dataset
from ganfast.data.derived import few, outlines, split
from ganfast.data.sources import exists, place_of
from ganfast.errors import InputError


def test_few_rows_of_each_class_are_always_the_same():
    whole, part = open_dataset("digits", size=16), open_dataset("few:3:digits", size=16)
    assert torch.bincount(part.labels).tolist() == [3] * 10 and part.names == whole.names and part.name == "few-digits"
    assert torch.equal(part.samples, open_dataset("few:3:digits", size=16).samples)
    flat = {(tuple(image.flatten().tolist()), int(k)) for image, k in zip(whole.samples, whole.labels)}
    assert all((tuple(image.flatten().tolist()), int(k)) in flat for image, k in zip(part.samples, part.labels))
    assert len(part.samples.flatten(1).unique(dim=0)) == 30


def test_few_says_what_is_missing():
    with pytest.raises(InputError, match="class b has fewer than 2"):
        few(Dataset("s", images=torch.zeros(3, 2, 2, 1, dtype=torch.uint8), labels=torch.tensor([0, 0, 1]),
                    names={"labels": ("a", "b")}), 2)  # fmt: skip
    with pytest.raises(InputError, match="needs labels"):
        few(Dataset("s", images=torch.zeros(3, 2, 2, 1, dtype=torch.uint8)), 2)
    for word in ("few:digits", "few:0:digits", "few:x:digits", "few:3:"):
        with pytest.raises(InputError, match="as few:10:digits"):
            open_dataset(word)


def test_outlines_surround_what_is_bright():
    image = torch.zeros(1, 5, 5, 1, dtype=torch.uint8)
    image[0, 2, 2] = 200
    expected = torch.zeros(5, 5, dtype=torch.uint8)
    expected[1:4, 1:4] = 200
    expected[2, 2] = 0
    assert torch.equal(outlines(image)[0, :, :, 0], expected)


def test_edges_keep_labels_and_order():
    whole, made = open_dataset("digits", size=16), open_dataset("edges:digits", size=16)
    assert torch.equal(made.labels, whole.labels) and torch.equal(made.samples, outlines(whole.samples))
    with pytest.raises(InputError, match="holds points"):
        open_dataset("edges:gaussians:ring8")
    assert len(open_dataset("few:2:edges:digits", size=16)) == 20


def test_the_place_of_what_is_made_is_that_of_its_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    assert split("few:10:some") == ("few:10:", "some") and split("C:some") == ("", "C:some")
    assert place_of("few:10:some") == f"few:10:{tmp_path}/some" and place_of("edges:digits") is None
    assert exists("edges:some") and exists("few:2:digits") and not exists("edges:none")
