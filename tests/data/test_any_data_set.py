"""2,000 generated data sets: each ends in a data set or in one sentence, and none loses its labels silently."""

import contextlib
import io
import itertools
import json

import numpy as np
import pytest
from data.made import cifar, dumped, idx, place, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganfast.data import Dataset, open_dataset
from ganfast.errors import InputError

IMAGES = [png(k, size) for k, size in enumerate((16, 16, 24, 9))]
DAMAGED = [b"", b"hello", png(1)[:60], b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff\xe1\0\x10Exif\0\0"]
NAMES = ("1.png", "2.png", "ü.png", "b c.PNG", "deep/3.png", "noname")
SIDE = {
    "README.md": b"#",
    "LICENSE": b"",
    ".DS_Store": b"\0",
    "__MACOSX/._1.png": b"",
    "notes.json": b"{",
    "a.csv": b"x",
}
counter = itertools.count()

rarely = st.sampled_from([False] * 5 + [True])
classes = st.lists(st.sampled_from(["cat", "dog", "test", "train", "0", "1"]), min_size=0, max_size=3, unique=True)
label = st.one_of(st.integers(-3, 20231107), st.sampled_from(["cat", "dog", ""]), st.floats(), st.none(),
                  st.lists(st.integers(0, 1), max_size=3), st.just({}), st.booleans())  # fmt: skip


def alike(values, draw):
    """Labels of one kind for all, or of any."""
    kind = draw(st.sampled_from(["numbers", "words", "vectors", "any", "missing"]))
    if kind == "numbers":
        return [draw(st.integers(0, 9)) for _ in values]
    if kind == "words":
        return [draw(st.sampled_from(["a", "b", "ü"])) for _ in values]
    if kind == "vectors":
        return [[draw(st.integers(0, 1)), 0.5] for _ in values]
    return [draw(label) if kind == "any" or k else None for k, _ in enumerate(values)]


@st.composite
def image_sets(draw):
    """(files, whether somebody labelled them, whether something is damaged)."""
    folders = draw(classes)
    paths = [f"{f}/{n}" for f in folders for n in draw(st.sets(st.sampled_from(NAMES), min_size=1, max_size=3))]
    paths += draw(st.lists(st.sampled_from(NAMES), max_size=2 if folders else 4, unique=True))
    files = {path: draw(st.sampled_from(IMAGES)) for path in paths}
    root = draw(st.sampled_from(["", "", "wrapped/", "x/train/"]))
    labelled = len(folders) > 1 and not {"test", "train"} & set(folders) and all("/" in path for path in paths)
    table = draw(st.sampled_from([None, "dataset.json", "metadata.csv", "metadata.jsonl"]))
    if table and paths:
        values = alike(paths, draw)
        labelled = any(value is not None for value in values)
        files[table] = write(table, paths, values)
        if draw(st.booleans()):
            files[table] = files[table][: draw(st.integers(0, len(files[table])))]
    damaged = draw(rarely)
    if damaged:
        files["bad.png"] = draw(st.sampled_from(DAMAGED))
    files |= {name: SIDE[name] for name in draw(st.lists(st.sampled_from(sorted(SIDE)), max_size=2))}
    return {root + name: content for name, content in files.items()}, labelled, damaged or not paths


def write(table, paths, values):
    if table == "dataset.json":
        return json.dumps({"labels": list(zip(paths, values))}).encode()
    rows = [{"file_name": path, "label": value} for path, value in zip(paths, values)]
    if table.endswith("jsonl"):
        return "\n".join(map(json.dumps, rows)).encode()
    return "\n".join(["file_name,label", *(f"{row['file_name']},{row['label']}" for row in rows)]).encode()


@st.composite
def array_sets(draw):
    """A file of arrays, an IDX pair or a batch of CIFAR, with labels of some shape."""
    count, seed = draw(st.sampled_from([3, 2, 1, 0])), draw(st.integers(0, 9))
    dtype = draw(st.sampled_from([np.uint8, bool, np.int64, np.uint16, np.float32, np.complex64]))
    shape = draw(st.sampled_from([(16, 16), (16, 16), (16, 16, 3), (3, 16, 16), (256,), (2,), (5, 20), ()]))
    pixels = (np.random.default_rng(seed).random((count, *shape)) * draw(st.sampled_from([1, 255, 1e9]))).astype(dtype)
    values = np.array(alike(range(count + draw(st.sampled_from([0, 0, 1]))), draw), object)
    if draw(st.booleans()):
        with contextlib.suppress(ValueError):
            values = np.array(values.tolist())
    form = draw(st.sampled_from(["x.npy", "x.npz", "idx", "cifar"]))
    buffer = io.BytesIO()
    if form == "idx":
        files = {
            "train-images-idx3-ubyte": idx(np.zeros((count, 28, 28))),
            "train-labels-idx1-ubyte": idx(np.zeros(count + seed % 2)),
        }
    elif form == "cifar":
        files = {"data_batch_1": dumped(cifar(max(count, 1), seed))}
    elif form == "x.npy":
        np.save(buffer, pixels)
        files = {form: buffer.getvalue()}
    else:
        names = draw(st.sampled_from([("images", "labels"), ("x_train", "y_train"), ("a", "b"), ("data", "targets")]))
        np.savez(buffer, **dict(zip(names, (pixels, values))))
        files = {form: buffer.getvalue()}
    if draw(rarely):
        name = draw(st.sampled_from(sorted(files)))
        files[name] = files[name][: draw(st.integers(0, len(files[name])))]
    return files


def outcome(path, **options):
    """The data set, or the sentence; anything else is an error of ours."""
    try:
        data = open_dataset(path, progress=False, **options)
        assert isinstance(data, Dataset) and len(data) > 0
        return data
    except InputError as error:
        sentence = str(error)
        assert len(sentence) > 20 and "\n" not in sentence and "Traceback" not in sentence
        return sentence


options = st.fixed_dictionaries({}, optional={
    "skip_bad": st.booleans(), "skip_unlabelled": st.booleans(), "split": st.sampled_from(["train", "test", "x"]),
    "fit": st.sampled_from(["pad", "stretch"]), "channels": st.sampled_from([1, 3]), "transpose": st.booleans(),
    "shape": st.just("16x16"), "layout": st.just("ab"), "size": st.sampled_from([16, "32x16", "16x24"]),
})  # fmt: skip

many = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "zip", "tar", "tar.gz"])
def test_folders_and_archives(form, tmp_path):
    @many
    @given(image_sets(), rarely, options, rarely, st.data())
    def check(made, changed, options, cut, data):
        files, labelled, damaged = made
        path = place(tmp_path / str(next(counter)), form, files)
        if form != "folder" and cut:
            with open(path, "r+b") as file:
                file.truncate(data.draw(st.integers(0, file.seek(0, 2))))
            outcome(path, **options)
            return
        found = outcome(path, **(options if changed else {}))
        if changed or isinstance(found, str):
            assert changed or damaged, found  # what is whole opens
            return
        if labelled and not {"labels", "attributes"} & set(found.columns):
            assert any(note.startswith("without labels: ") for note in found.notes), (files.keys(), found.notes)

    check()


@pytest.mark.slow
def test_arrays(tmp_path):
    @many
    @given(array_sets(), rarely, options, st.booleans())
    def check(files, changed, options, single):
        path = place(tmp_path / str(next(counter)), "folder", files)
        if single and len(files) == 1:
            path = f"{path}/{next(iter(files))}"
        found = outcome(path, **(options if changed else {}))
        if isinstance(found, Dataset) and len(files) == 2 and "labels" not in found.columns:
            assert "without labels" in "".join(found.notes)

    check()
