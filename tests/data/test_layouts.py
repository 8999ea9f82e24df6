"""What a folder or an archive is: splits, wrapping folders, side files, tables, IDX, CIFAR, parquet."""

import gzip
import io
import json
import pickle
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data.made import cifar, dumped, idx, place, png
from PIL import Image

from ganfast.data import open_dataset, pack
from ganfast.data.labels import text
from ganfast.data.sources import exists, open_titled, place_of
from ganfast.errors import InputError

HERE = ("folder", "zip", "tar", "tar.gz")


@pytest.fixture(params=HERE)
def placed(request, tmp_path):
    return lambda files: place(tmp_path, request.param, files)


# -- folders, splits, side files ---------------------------------------------------------------------------------------


def test_one_wrapping_folder_is_left_out(placed):
    files = {f"animals/{name}": png(k) for k, name in enumerate(("cat/1.png", "dog/1.png", "dog/2.png"))}
    data = open_dataset(placed(files))
    assert data.labels.tolist() == [0, 1, 1] and data.names == {"labels": ("cat", "dog")} and data.notes == ()


@pytest.mark.parametrize("where, path", [("animals/", "cat/1.png"), ("", "animals/cat/1.png")])
def test_dataset_json_inside_or_outside_the_wrapping_folder(placed, where, path):
    table = json.dumps({"labels": {path: "tabby", path.replace("1", "2"): "tiger"}}).encode()
    data = open_dataset(
        placed({"animals/cat/1.png": png(1), "animals/cat/2.png": png(2), f"{where}dataset.json": table})
    )
    assert data.names == {"labels": ("tabby", "tiger")} and data.labels.tolist() == [0, 1]


SPLIT = {
    f"{part}/{name}/{k}.png": png(k) for k, part in enumerate(("train", "train", "Test")) for name in ("cat", "dog")
}


def test_splits_are_no_classes(placed):
    path = placed(SPLIT)
    data = open_dataset(path)
    assert len(data) == 4 and data.names == {"labels": ("cat", "dog")}
    assert data.notes == ("took the part train of Test, train (--split takes another)",)
    test = open_dataset(path, split="test")
    assert len(test) == 2 and test.labels.tolist() == [0, 1] and test.notes == ()
    with pytest.raises(InputError, match="--split val: its parts are Test, train"):
        open_dataset(path, split="val")


def test_a_split_that_is_not_there(placed):
    path = placed({"cat/1.png": png(), "dog/1.png": png()})
    with pytest.raises(InputError, match="--split test: it has no parts"):
        open_dataset(path, split="test")


def test_validation_before_test_where_there_is_no_train(placed):
    data = open_dataset(placed({"test/1.png": png(1), "validation/1.png": png(2)}))
    assert data.notes == ("took the part validation of test, validation (--split takes another)",)


def test_unpaired_sets_are_no_classes(placed):
    path = placed({f"{part}/1.png": png() for part in ("trainA", "trainB", "testA", "testB")})
    with pytest.raises(InputError, match=r"holds two sets of images; give --data .*trainA --data-b .*trainB"):
        open_dataset(path)


SIDE = {
    "README.md": b"# hello", "LICENSE": b"CC0", ".DS_Store": b"\0", "cat/Thumbs.db": b"\0",
    "__MACOSX/cat/._1.png": b"\0", "notes.csv": b"a,b\n1,2\n",
    "labels.npy": b"", "old.zip": b"PK", "cat/run.py": b"", "walk.mp4": b"",
}  # fmt: skip


def test_side_files_are_passed_over_and_counted(placed):
    data = open_dataset(placed({"cat/1.png": png(1), "dog/2.png": png(2), **SIDE}))
    assert data.labels.tolist() == [0, 1] and data.skipped == ()
    (note,) = data.notes
    assert note.startswith("passed over what is no picture: ")
    for part in ("2 documents (LICENSE, README.md)", "3 files of the system", "1 tables (notes.csv)", "1 archives"):
        assert part in note


def test_a_damaged_image_still_stops(placed):
    path = placed({"1.png": png(1), "2.png": png(2)[:200], "README.md": b""})
    with pytest.raises(InputError, match=r"2\.png: cannot be read.*--skip-bad"):
        open_dataset(path)
    assert open_dataset(path, skip_bad=True).skipped == ("2.png",)


def test_nothing_but_side_files(placed):
    with pytest.raises(InputError, match="holds no images"):
        open_dataset(placed({"README.md": b"", "a/b.csv": b""}))


# -- a folder inside an archive ----------------------------------------------------------------------------------------


@pytest.fixture(params=["zip", "tar", "tar.gz"])
def archived(request, tmp_path):
    table = json.dumps({"labels": {"a/1.png": "tabby", "a/2.png": "tiger", "b/1.png": "x", "b/2.png": "y"}}).encode()
    files = {f"{side}/{k}.png": png(10 * k + (side == "b")) for side in "ab" for k in (1, 2)}
    return place(tmp_path, request.param, {**files, "dataset.json": table, "ab/3.png": png(), "README.md": b""})


def test_a_folder_inside_an_archive(archived, tmp_path, monkeypatch):
    data = open_dataset(f"{archived}/a")
    assert data.name == "a" and data.names == {"labels": ("tabby", "tiger")} and data.notes == ()
    np.testing.assert_array_equal(data.samples[1], np.asarray(Image.open(io.BytesIO(png(20)))))
    pairs = open_dataset(f"{archived}/a", targets=f"{archived}/b/")
    assert torch.equal(pairs.columns["targets"], open_dataset(f"{archived}/b").samples)
    assert pack(f"{archived}/a", str(tmp_path / "p.safetensors")).fingerprint() == data.fingerprint()
    one, titles = open_titled(f"{archived}/b/2.png")
    assert torch.equal(one.samples, pairs.columns["targets"][1:]) and titles == ["2.png"] and one.name == "2"
    monkeypatch.chdir(tmp_path)
    word = f"{Path(archived).name}/a"
    assert exists(word) and place_of(word) == f"{archived}/a" and open_titled(word)[1] == ["1.png", "2.png"]


def test_what_is_not_inside_an_archive(archived, tmp_path):
    for inside, words in (
        ("c", "has no c; it holds README.md, a, ab, b, dataset.json"),
        ("a/3.png", "has no a/3.png; a/ holds 1.png, 2.png"),
    ):
        with pytest.raises(InputError, match=words):
            open_dataset(f"{archived}/{inside}")
    (tmp_path / "one.png").write_bytes(png())
    with pytest.raises(InputError, match=r"one\.png is an image; only a \.zip or \.tar has folders"):
        open_dataset(str(tmp_path / "one.png" / "a"))
    assert not exists(str(tmp_path / "gone.zip" / "a"))
    with pytest.raises(InputError, match="no such file or folder"):
        open_dataset(str(tmp_path / "gone.zip" / "a"))


def test_a_damaged_image_inside_is_named(tmp_path):
    path = place(tmp_path, "zip", {"x/y/1.png": png(1)[:200], "z.png": png(2)})
    with pytest.raises(InputError, match=r"set\.zip/x/y: 1\.png: cannot be read"):
        open_dataset(f"{path}/x/y")


def test_palette_and_grey_pictures_as_rgb(tmp_path):
    path = place(tmp_path, "zip", {"p/1.png": png(1, mode="P"), "g/1.png": png(1, mode="L")})
    for folder in "pg":
        with zipfile.ZipFile(path) as archive, Image.open(archive.open(f"{folder}/1.png")) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(open_dataset(f"{path}/{folder}", channels=3).samples[0], expected)


# -- tables ------------------------------------------------------------------------------------------------------------

CSV = 'file_name,label,text\n1.png,cat,a cat\n2.png,dog,"a dog, asleep"\n'
JSONL = """{"file_name": "1.png", "label": "cat", "text": "a cat"}
{"file_name": "2.png", "label": "dog", "text": "a dog, asleep"}
"""


@pytest.mark.parametrize("name, content", [("metadata.csv", CSV), ("metadata.jsonl", JSONL), ("labels.csv", CSV)])
def test_tables_give_labels_and_captions(placed, tmp_path, name, content):
    path = placed({"1.png": png(1), "2.png": png(2), name: b"\xef\xbb\xbf" + content.encode()})
    data = open_dataset(path)
    assert data.labels.tolist() == [0, 1] and data.names == {"labels": ("cat", "dog")} and data.notes == ()
    assert [text(row) for row in data.columns["captions"]] == ["a cat", "a dog, asleep"]
    packed = pack(path, str(tmp_path / "p.safetensors"))
    assert [text(row) for row in packed.columns["captions"]] == ["a cat", "a dog, asleep"]


def test_captions_do_not_hide_labels_of_folders(placed):
    table = b"file_name\ttext\na/1.png\tone\nb/2.png\ttwo\n"
    data = open_dataset(placed({"a/1.png": png(1), "b/2.png": png(2), "metadata.tsv": table}))
    assert set(data.columns) == {"images", "captions", "labels"} and data.labels.tolist() == [0, 1]


def test_whole_numbers_of_a_table_are_classes_and_others_attributes(placed):
    table = b"image,age,class,kind\n2.png,7.5,20231107,x\n1.png,30,4,y\n"
    data = open_dataset(placed({"1.png": png(1), "2.png": png(2), "about.csv": table}))
    assert data.labels.tolist() == [0, 1] and data.columns["attributes"].tolist() == [[30], [7.5]]
    assert data.names == {"labels": ("4", "20231107"), "attributes": ("age",)}


CELEBA = "2\nSmiling Hat\n000001.jpg  1 -1\n000002.jpg -1  1\n"


@pytest.mark.parametrize(
    "name, content",
    [
        ("list_attr_celeba.txt", CELEBA),
        ("list_attr_celeba.csv", "image_id,Smiling,Hat\n000001.jpg,1,-1\n000002.jpg,-1,1\n"),
    ],
)
def test_celeba(placed, name, content):
    images = {f"img_align_celeba/00000{k}.jpg": png(k) for k in (1, 2)}
    data = open_dataset(placed({**images, name: content.encode(), "list_eval_partition.txt": b"000001.jpg 0\n"}))
    assert data.columns["attributes"].tolist() == [[1, -1], [-1, 1]] and data.names["attributes"] == ("Smiling", "Hat")


def test_labels_of_a_part_and_skip_unlabelled(placed):
    table = json.dumps({"labels": [["1.png", "cat"], ["3.png", "dog"]]}).encode()
    path = placed({"1.png": png(1), "2.png": png(2), "3.png": png(3), "dataset.json": table})
    data = open_dataset(path)
    why = "dataset.json labels only 2 of 3 files; --skip-unlabelled skips the others"
    assert len(data) == 3 and data.absent["labels"] == why and data.notes == (f"without labels: {why}",)
    data = open_dataset(path, skip_unlabelled=True)
    assert data.labels.tolist() == [0, 1] and data.notes == ("skipped 1 of 3 images, which have no label",)
    with pytest.raises(InputError, match="no image has a label"):
        open_dataset(
            placed({"1.png": png(1), "2.png": png(2), "3.png": png(3), "dataset.json": b'{"labels": []}'}),
            skip_unlabelled=True,
        )


def test_skip_unlabelled_by_folders(placed):
    data = open_dataset(placed({"cat/1.png": png(1), "dog/1.png": png(2), "3.png": png(3)}), skip_unlabelled=True)
    assert data.labels.tolist() == [0, 1]


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_are_compared_whatever_their_unicode_form(placed, forms):
    on_disk, in_json = (unicodedata.normalize(form, "müde.png") for form in forms)
    table = json.dumps({"labels": {in_json: 3, "b.png": 5}}).encode()
    assert open_dataset(placed({on_disk: png(1), "b.png": png(2), "dataset.json": table})).names["labels"] == ("3", "5")


def test_zip_names_without_the_utf8_flag(tmp_path):
    path = place(
        tmp_path,
        "zip",
        {"m\u00fcde.png": png(1), "b.png": png(2), "dataset.json": '{"labels": {"müde.png": 0, "b.png": 1}}'.encode()},
    )
    content = bytearray(Path(path).read_bytes())
    for at in range(len(content) - 10):  # the flag 0x800 in local and central headers
        for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            if content[at : at + 4] == magic:
                content[at + offset + 1] &= ~0x08
    Path(path).write_bytes(content)
    assert not any(m.flag_bits & 0x800 for m in zipfile.ZipFile(path).infolist())
    assert open_dataset(path).labels.tolist() == [1, 0]


# -- IDX ---------------------------------------------------------------------------------------------------------------


def digits(count, seed=0):
    return np.random.default_rng(seed).integers(256, size=(count, 28, 28), dtype=np.uint8)


def mnist(prefix="", dash="-", **counts):
    files = {}
    for part, count in counts.items():
        files[f"{prefix}{part}-images{dash}idx3-ubyte"] = idx(digits(count, count))
        files[f"{prefix}{part}-labels{dash}idx1-ubyte"] = idx(np.arange(count) % 3)
    return files


@pytest.mark.parametrize("dash", ["-", "."])
@pytest.mark.parametrize("below", ["", "MNIST/raw/"])
def test_mnist_wherever_it_lies_and_its_split(placed, below, dash):
    files = {below + name: content for name, content in mnist(dash=dash, train=5, t10k=4).items()}
    path = placed({**files, "readme.txt": b""})
    data = open_dataset(path, size=32)
    assert len(data) == 5 and data.labels.tolist() == [0, 1, 2, 0, 1]
    assert data.notes == ("took the part train of t10k, train (--split takes another)",)
    assert len(open_dataset(path, split="test")) == 4


def test_compressed_and_plain_beside_each_other(placed):
    files = mnist(train=5)
    data = open_dataset(placed(files | {f"{name}.gz": gzip.compress(content) for name, content in files.items()}))
    assert len(data) == 5 and data.notes == ()


def test_emnist_is_turned_upright(placed):
    path = placed(mnist("emnist-letters-", train=3))
    data = open_dataset(path)
    turned = Image.fromarray(digits(3, 3)[0].T).resize((32, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(data.samples[0, ..., 0].numpy(), np.asarray(turned))
    assert "upright" in data.notes[0] and len(data.labels) == 3
    stored = Image.fromarray(digits(3, 3)[0]).resize((32, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(open_dataset(path, transpose=True).samples[0, ..., 0].numpy(), np.asarray(stored))


def test_several_sets_in_one_place(placed):
    path = placed(mnist("emnist-letters-", train=3) | mnist("emnist-digits-", train=4))
    with pytest.raises(InputError, match="holds emnist-digits-train, emnist-letters-train; choose one with --split"):
        open_dataset(path)
    assert len(open_dataset(path, split="emnist-digits-train")) == 4


def test_qmnist_has_its_class_in_the_first_column(placed):
    labels = np.array([[7, 0, 99], [1, 3, 98], [7, 4, 97]])
    files = {
        "qmnist-train-images-idx3-ubyte.gz": gzip.compress(idx(digits(3))),
        "qmnist-train-labels-idx2-int.gz": gzip.compress(idx(labels, 0x0C, ">i4")),
    }
    data = open_dataset(placed(files))
    assert data.labels.tolist() == [1, 0, 1] and data.names["labels"] == ("1", "7")


def test_transpose_of_files_and_arrays(tmp_path):
    image = Image.open(io.BytesIO(png(1)))
    path = place(tmp_path, "folder", {"1.png": png(1)})
    np.testing.assert_array_equal(open_dataset(path, transpose=True).samples[0], np.asarray(image).transpose(1, 0, 2))
    np.save(tmp_path / "a.npy", np.asarray(image)[None])
    turned = open_dataset(str(tmp_path / "a.npy"), transpose=True)
    np.testing.assert_array_equal(turned.samples[0], np.asarray(image).transpose(1, 0, 2))


# -- CIFAR -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tar.gz", "folder"])
def test_cifar_10_without_unpickling_code(tmp_path, form):
    base, batches = "cifar-10-batches-py/", [cifar(3, 1), cifar(2, 2)]
    files = {f"{base}data_batch_{k}": dumped(batch) for k, batch in enumerate(batches, 1)}
    files |= {f"{base}test_batch": dumped(cifar(4, 3)), f"{base}readme.html": b"<html>"}
    files[f"{base}batches.meta"] = dumped({b"label_names": [b"airplane", b"automobile"]})
    path = place(tmp_path, form, files)
    data = open_dataset(path)
    expected = np.concatenate([b[b"data"] for b in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(data.samples.numpy(), expected)
    assert data.labels.tolist() == [0, 1, 0, 0, 1] and data.names == {"labels": ("airplane", "automobile")}
    assert data.notes == ("took the part train of train, test (--split takes another)",)
    assert len(open_dataset(path, split="test")) == 4


def test_cifar_100(tmp_path):
    files = {f"cifar-100-python/{part}": dumped(cifar(3, 1, b"fine_labels")) for part in ("train", "test")}
    files["cifar-100-python/meta"] = dumped({b"fine_label_names": [b"apple", b"bear"]})
    assert open_dataset(place(tmp_path, "tar.gz", files)).names["labels"] == ("apple", "bear")


class Bomb:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/ganfast-was-here",)


@pytest.mark.parametrize("value", [Bomb(), {b"data": Bomb()}, {b"data": np.zeros((2, 3072))}, {b"data": 3}, [1]])
def test_a_pickle_with_anything_else_is_refused(tmp_path, value):
    with pytest.raises(InputError, match=r"data_batch_1: "):
        open_dataset(place(tmp_path, "folder", {"data_batch_1": pickle.dumps(value)}))
    import os

    assert not os.path.exists("/tmp/ganfast-was-here")


# -- parquet -----------------------------------------------------------------------------------------------------------


def parquet(images, about=None, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": images, **columns})
    if about:
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


ABOUT = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_parquet_with_an_image_column(tmp_path, form):
    rows = [{"bytes": png(k), "path": f"{k}.png"} for k in range(3)]
    files = {
        "data/train-00000-of-00002.parquet": parquet(rows[:2], ABOUT, label=[1, 0], text=["a", "b"]),
        "data/train-00001-of-00002.parquet": parquet(rows[2:], ABOUT, label=[1], text=["c"]),
        "data/test-00000-of-00001.parquet": parquet(rows[:1], ABOUT, label=[0], text=["d"]),
        "README.md": b"",
    }
    data = open_dataset(place(tmp_path, form, files))
    expected = np.stack([np.asarray(Image.open(io.BytesIO(png(k)))) for k in range(3)])
    np.testing.assert_array_equal(data.samples.numpy(), expected)
    assert data.labels.tolist() == [1, 0, 1] and data.names["labels"] == ("cat", "dog")
    assert [text(row) for row in data.columns["captions"]] == ["a", "b", "c"]
    assert data.notes == ("took the part train of test, train (--split takes another)",)


def test_one_parquet_file_of_encoded_bytes(tmp_path):
    (tmp_path / "x.parquet").write_bytes(parquet([png(1), b"nonsense"], label=["b", "a"]))
    with pytest.raises(InputError, match=r"row 1: not an image.*--skip-bad"):
        open_dataset(str(tmp_path / "x.parquet"))
    data = open_dataset(str(tmp_path / "x.parquet"), skip_bad=True)
    assert data.names["labels"] == ("b",) and data.skipped == ("row 1",)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"parquet needs pyarrow; run pip install 'ganfast\[parquet\]'"):
        open_dataset(str(tmp_path / "x.parquet"))


def test_parquet_without_images(tmp_path):
    (tmp_path / "x.parquet").write_bytes(parquet([1.5, 2.5]))
    with pytest.raises(InputError, match="none of the columns image holds images"):
        open_dataset(str(tmp_path / "x.parquet"))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match="a damaged parquet file"):
        open_dataset(str(tmp_path / "x.parquet"))


# -- other files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.mat", b"MATLAB 5.0 MAT-file", "a MATLAB file; save its images as .npz"),
        ("a.mat", b"\x89HDF\r\n\x1a\n", "an HDF5 or MATLAB 7.3 file"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "a 7z file; extract it"),
        ("a.rar", b"Rar!\x1a\x07", "a RAR file; extract it"),
        ("a.pkl", pickle.dumps({}), "a Python pickle, which could run code"),
        ("a.pt", b"PK\3\4", "torch.save"),
        ("a.zip", b"<!DOCTYPE html><html>", "a web page"),
        ("a.npz", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("a.csv", b"a,b\n", "a table or a text"),
        ("a.mp4", b"\0\0\0\x20ftyp", "a film or a sound"),
        ("a.gz", gzip.compress(b"hello", mtime=0), "a compressed file; extract it"),
        ("a", b"", "an empty file"),
        ("a.xyz", b"hello", "a file of no kind that is known here; give a folder"),
        ("a.tar", b"hello", "a damaged or truncated tar file"),
        ("a.tar.gz", gzip.compress(b"\0" * 1000, mtime=0)[:20], "a damaged or truncated tar file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: {words}|{name}: .*{words}"):
        open_dataset(str(tmp_path / name))


def test_a_folder_with_one_archive_is_that_archive(tmp_path):
    path = place(tmp_path / "emoji", "zip", {"1.png": png(1)})
    (tmp_path / "emoji" / "README.md").write_text("hello")
    assert len(open_dataset(str(tmp_path / "emoji"))) == 1
    np.save(tmp_path / "emoji" / "more.npy", digits(2))
    with pytest.raises(InputError, match=r"holds more\.npy, set\.zip; give one of these"):
        open_dataset(str(tmp_path / "emoji"))
    assert path
