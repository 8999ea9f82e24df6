"""Sources that are made of another one."""

import pytest
import torch
from data.made import place, png

from ganfast.data import Dataset, open_dataset, pack
from ganfast.data.derived import few, make, outlines, split
from ganfast.data.sources import exists, open_titled, place_of
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


def test_every_tenth_row_is_the_test():
    columns = {"images": torch.randint(256, (25, 8, 8, 1), dtype=torch.uint8), "labels": torch.arange(25)}
    whole = Dataset("s", targets=255 - columns["images"], attributes=torch.randn(25, 2),
                    names={"attributes": ("u", "v")}, **columns)  # fmt: skip
    train, test = (make(f"part:{which}:", whole) for which in ("train", "test"))
    assert test.labels.tolist() == [0, 10, 20] and len(train) == 22 and train.name == "part-s"
    assert sorted([*train.labels.tolist(), *test.labels.tolist()]) == list(range(25))
    for part in (train, test):
        assert list(part.columns) == list(whole.columns) and part.names == whole.names
        assert all(torch.equal(values, whole.columns[name][part.labels]) for name, values in part.columns.items())
    assert len(open_dataset("part:test:gaussians:ring8")) == -(-len(open_dataset("gaussians:ring8")) // 10)


def test_parts_say_what_is_missing():
    with pytest.raises(InputError, match="part:train:s: nothing is left of 1 rows"):
        make("part:train:", Dataset("s", points=torch.zeros(1, 2)))
    for word in ("part:val:digits", "part:digits", "part:train:"):
        with pytest.raises(InputError, match="give train or test and a source, as part:train:digits"):
            open_dataset(word)


def test_parts_of_pairs_have_the_rows_of_the_images(tmp_path):
    files = {f"{side}/{k:02d}.png": png(k + 50 * (side == "b")) for side in "ab" for k in range(12)}
    path = place(tmp_path, "zip", files)
    whole = open_dataset(f"{path}/a", targets=f"{path}/b")
    for targets in (f"{path}/b", f"part:test:{path}/b"):  # said of the images alone, or of both
        data, titles = open_titled(f"part:test:{path}/a", targets)
        assert all(torch.equal(values, whole.columns[name][::10]) for name, values in data.columns.items())
        assert set(data.columns) == {"images", "targets"} and titles == ["00.png", "10.png"]
    assert torch.equal(open_dataset(f"part:test:{path}/b").samples, data.columns["targets"])  # unpaired, by itself
    packed = pack(f"part:train:{path}/a", str(tmp_path / "p.safetensors"), f"{path}/b")
    assert len(packed) == 10 and torch.equal(packed.columns["targets"][0], whole.columns["targets"][1])
    with pytest.raises(InputError, match="images made of others have no partners"):
        open_dataset(f"edges:{path}/a", targets=f"{path}/b")
    with pytest.raises(InputError, match=r"--layout ab: both sides lie in one picture"):
        open_dataset(f"part:test:{path}/a", targets=f"{path}/b", layout="ab")
    with pytest.raises(InputError, match=r"which rows of pairs are taken; leave out part:train:"):
        open_dataset(f"{path}/a", targets=f"part:train:{path}/b")


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
