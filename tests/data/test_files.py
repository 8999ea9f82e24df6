"""Folders and zip files: order, labels, what is ignored, what is refused by name, what --skip-bad leaves out."""

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ganfast.data import Images, Labels, match, open_dataset
from ganfast.data import rows as rows_module
from ganfast.errors import InputError


def zipped(folder, compression=zipfile.ZIP_STORED, top=""):
    path = folder.parent / "set.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, top + file.relative_to(folder).as_posix())
    return path


@pytest.fixture(params=["folder", "zip"])
def source(request, folder):
    """source(names, extra={name: bytes}) → path of a folder or of a zip with the same content."""

    def make(*names, extra=None):
        root = folder(*names)
        root.mkdir(exist_ok=True)
        for name, content in (extra or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return str(root if request.param == "folder" else zipped(root))

    return make


def test_images_come_sorted_by_path(source, picture):
    data = open_dataset(source("b.png", "a/z.png", "a.png"))
    order = [2, 1, 0]  # a.png, a/z.png, b.png
    expected = np.stack([np.asarray(picture(k)) for k in order])
    np.testing.assert_array_equal(data.samples.numpy(), expected)
    assert (data.name, data.kind, data.shape, len(data)) == ("set", "images", (3, 16, 16), 3)
    assert data.labels is None and data.num_classes == 0 and data.skipped == ()


def test_deflated_zip_equals_stored(folder):
    root = folder("a.png", "b.png")
    stored = open_dataset(str(zipped(root))).samples
    assert torch.equal(open_dataset(str(zipped(root, zipfile.ZIP_DEFLATED))).samples, stored)


def test_labels_from_folders(source):
    data = open_dataset(source("dog/1.png", "cat/2.png", "cat/deep/3.png", "ant/4.png"))
    assert data.labels.tolist() == [0, 1, 1, 2] and data.labels.dtype == torch.int64
    assert data.names == {"labels": ("ant", "cat", "dog")}


def test_no_labels_from_one_folder(source):
    data = open_dataset(source("all/1.png", "all/2.png"))
    assert data.labels is None and data.absent == {}


def test_no_labels_where_images_lie_outside_the_folders(source):
    data = open_dataset(source("dog/1.png", "cat/2.png", "3.png"))
    assert data.labels is None and data.absent["labels"] == "1 of 3 files lie outside the folders of classes"


def labelled(source, *names, **entries):
    return open_dataset(source(*names, extra={"dataset.json": json.dumps(entries).encode()}))


@pytest.mark.parametrize("pairs", [[["a/1.png", 5], ["b/2.png", 0]], {"a/1.png": 5, "b\\2.png": 0}])
def test_labels_from_dataset_json_come_first(source, pairs):
    data = labelled(source, "a/1.png", "b/2.png", labels=pairs)
    assert data.labels.tolist() == [1, 0] and data.names == {"labels": ("0", "5")}


def test_null_in_dataset_json_means_no_labels(source):
    data = labelled(source, "a/1.png", "b/2.png", labels=None)
    assert data.labels is None and data.absent == {}


def test_dataset_json_that_says_nothing_of_labels(source):
    assert labelled(source, "a/1.png", "b/2.png", license="CC0").names == {"labels": ("a", "b")}
    data = labelled(source, "a/1.png", "b/2.png", "3.png", license="CC0")
    assert data.absent["labels"] == 'dataset.json has no "labels"'


def test_attributes_from_dataset_json(source):
    pairs = [["a.png", [0.5, 1]], ["b.png", [-1, 0]], ["gone.png", [7, 7]]]
    data = labelled(source, "b.png", "a.png", labels=pairs, names=["smile", "age"])
    assert data.columns["attributes"].tolist() == [[0.5, 1], [-1, 0]] and data.names == {"attributes": ("smile", "age")}
    assert data.columns["attributes"].dtype == torch.float32 and data.labels is None


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"{", "dataset.json is not valid JSON"),
        (b"\xff\xfe", "dataset.json is not valid JSON"),
        (b"[" * 100_000, "dataset.json is not valid JSON"),
        (b"[]", 'dataset.json has no "labels"'),
        (b'{"classes": []}', 'dataset.json has no "labels"'),
        (b'{"labels": 3}', 'the "labels" of dataset.json are not'),
        (b'{"labels": ["a.png"]}', 'the "labels" of dataset.json are not'),
        (b'{"labels": [[0, "a.png"]]}', 'the "labels" of dataset.json are not'),
        (b'{"labels": {"a.png": 1}}', "dataset.json labels only 1 of 2 files"),
        (b'{"labels": {"a.png": 1, "b.png": null}}', "dataset.json labels only 1 of 2 files"),
        (b'{"labels": {"a.png": 1, "b.png": "x"}}', "dataset.json has labels of the types int, str"),
        (b'{"labels": {"a.png": NaN, "b.png": 1}}', "NaN or infinity"),
    ],
)
def test_labels_that_cannot_be_used_do_not_stop_what_does_not_ask_for_them(source, content, reason):
    data = open_dataset(source("a.png", "b.png", extra={"dataset.json": content}))
    assert len(data) == 2 and list(data.columns) == ["images"] and data.skipped == ()
    assert data.absent["labels"].startswith(reason)
    assert len(match("dcgan", {"x": Images()}, [data])) == 1
    with pytest.raises(InputError) as caught:
        match("cgan", {"x": Images(), "y": Labels()}, [data])
    said = str(caught.value)
    assert said.startswith(f"recipe cgan needs labels, and set has none ({reason}") and "put each class" in said


def test_the_sentence_on_missing_labels(source):
    data = labelled(source, "a.png", "b.png", "c.png", labels=[["a.png", 1]])
    with pytest.raises(InputError) as caught:
        match("cgan", {"x": Images(), "y": Labels()}, [data])
    assert str(caught.value) == (
        "recipe cgan needs labels, and set has none (dataset.json labels only 1 of 3 files; --skip-unlabelled skips "
        "the others): put each class into a folder of its own, or add dataset.json."
    )


def test_dataset_json_that_cannot_be_read(folder):
    root = folder("a.png", "b.png")
    (root / "dataset.json").write_text('{"labels": [["a.png", 0], ["b.png", 1]]}')
    path = zipped(root)
    content = bytearray(path.read_bytes())
    content[content.index(b'{"labels"') + 12] ^= 255
    path.write_bytes(content)
    assert "CRC" in open_dataset(str(path)).absent["labels"]


def test_labels_of_files_that_are_skipped_do_not_matter(source):
    extra = {"dataset.json": b'{"labels": {"a.png": 7, "b.png": 9, "c.png": 8}}', "c.png": b"", "d.png": b""}
    data = open_dataset(source("a.png", "b.png", extra=extra), skip_bad=True)
    assert (
        data.labels.tolist() == [0, 1] and data.names == {"labels": ("7", "9")} and data.skipped == ("c.png", "d.png")
    )


def test_what_systems_leave_behind_is_ignored(source):
    junk = (".DS_Store", "__MACOSX/a.png", "sub/Thumbs.db", "desktop.ini", ".git/config", "sub/._a.png")
    data = open_dataset(source("a.png", extra=dict.fromkeys(junk, b"junk")))
    assert len(data) == 1 and data.skipped == ()


def truncated_png(picture):
    from io import BytesIO

    buffer = BytesIO()
    picture(0).save(buffer, "PNG")
    return buffer.getvalue()[:200]


@pytest.mark.parametrize(
    "name, reason",
    [
        ("text.png", "not an image"),
        ("cut.png", "cannot be read"),
        ("dot.png", "1×1"),
        ("empty.jpg", "not an image"),
    ],
)
def test_bad_file_is_named_and_skipped_on_request(source, picture, tmp_path, name, reason):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    content = {
        "text.png": b"hello",
        "cut.png": truncated_png(picture),
        "dot.png": (tmp_path / "dot.png").read_bytes(),
        "empty.jpg": b"",
    }[name]
    path = source("a.png", "z.png", extra={f"sub/{name}": content})
    with pytest.raises(InputError, match=rf"sub/{name}: .*{reason}.*--skip-bad"):
        open_dataset(path)
    data = open_dataset(path, skip_bad=True)
    assert len(data) == 2 and data.skipped == (f"sub/{name}",)
    np.testing.assert_array_equal(data.samples[1].numpy(), np.asarray(picture(1)))


def test_first_bad_file_by_path_is_the_one_named(source):
    with pytest.raises(InputError, match="b1"):
        open_dataset(source(*(f"a{k}.png" for k in range(20)), extra={"b2.png": b"", "b1.png": b""}))


def test_nothing_left_is_an_error(source):
    with pytest.raises(InputError, match="none of its 2 files"):
        open_dataset(source(extra={"a.png": b"", "b.png": b""}), skip_bad=True)


def test_empty_is_an_error(source):
    with pytest.raises(InputError, match="holds no images"):
        open_dataset(source(extra={".DS_Store": b""}))


def test_default_size_is_the_power_of_two_nearest_to_most_images(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(b"")
    for side, expected in ((9, 16), (45, 32), (46, 64), (600, 256)):
        picture(0, side).save(tmp_path / "b.png")
        assert open_dataset(str(tmp_path), skip_bad=True).shape == (3, expected, expected)


@pytest.mark.parametrize("size, advice", [(48, "32 or 64"), (8, "use 16"), (512, "use 256"), (0, "use 16")])
def test_other_sizes_are_refused(folder, size, advice):
    with pytest.raises(InputError, match=f"--size {size}.*{advice}"):
        open_dataset(str(folder("a.png")), size=size)


def test_channels(folder, picture):
    root = folder("a.png")
    grey = root.parent / "grey"
    grey.mkdir()
    for k in range(3):
        picture(k, mode="L").save(grey / f"{k}.png")
    assert open_dataset(str(grey)).shape == (1, 16, 16)
    assert open_dataset(str(grey), channels=3).shape == (3, 16, 16)
    data = open_dataset(str(root), channels=1)
    np.testing.assert_array_equal(data.samples[0, ..., 0].numpy(), np.asarray(picture(0, mode="L")))
    picture(9).save(grey / "9.png")
    assert open_dataset(str(grey)).shape == (3, 16, 16)
    with pytest.raises(InputError, match="--channels 2"):
        open_dataset(str(grey), channels=2)


def test_links_are_followed_but_not_in_circles(folder):
    root = folder("a/1.png", "b/2.png")
    os.symlink(root, root / "a" / "loop")
    os.symlink(root.parent / "gone.png", root / "b" / "broken.png")
    with pytest.raises(InputError, match=r"b/broken\.png: not a regular file"):
        open_dataset(str(root))
    assert len(open_dataset(str(root), skip_bad=True)) == 2


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_damaged_zip(folder, damage):
    path = zipped(folder("a.png", "b.png"))
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(InputError, match=r"set\.zip: a damaged"):
        open_dataset(str(path), skip_bad=True)


def test_member_with_a_bad_crc_is_named(folder):
    path = zipped(folder("a.png", "b.png"))
    content = bytearray(path.read_bytes())
    content[content.index(b"b.png") + 100] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"set\.zip: b\.png: .*CRC.*--skip-bad"):
        open_dataset(str(path))
    assert open_dataset(str(path), skip_bad=True).skipped == ("b.png",)


def test_zip_is_never_extracted(folder):
    path = zipped(folder("a.png"), top="../../")
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(InputError, match="holds no images"):  # a name that begins with a dot is ignored
        open_dataset(str(path))
    assert sorted(path.parent.rglob("*")) == before


def test_too_large_for_memory_advises_packing(folder, monkeypatch):
    root = folder("a.png", "b.png")
    monkeypatch.setattr(rows_module, "available_ram", lambda: 4 * 16 * 16 * 3)
    assert len(open_dataset(str(root))) == 2  # exactly half
    monkeypatch.setattr(rows_module, "available_ram", lambda: 4 * 16 * 16 * 3 - 2)
    with pytest.raises(InputError, match=r"ganfast data pack SRC DEST\.safetensors"):
        open_dataset(str(root))


def test_the_machine_says_how_much_memory_is_free():
    free = rows_module.available_ram()
    assert free is None or 2**20 < free < 2**50


def test_path_that_does_not_exist():
    with pytest.raises(InputError, match=r"no/such: .*digits, gaussians:ring8, gaussians:grid25"):
        open_dataset("no/such")


def test_a_single_picture_is_a_data_set_of_one(folder, picture):
    data = open_dataset(str(folder("a.png", "b.png") / "a.png"))
    np.testing.assert_array_equal(data.samples.numpy(), np.asarray(picture(0))[None])
    assert data.name == "a"
