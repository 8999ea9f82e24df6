"""Packing: the same pixels, written whole or not at all, opened without reading."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ganfast.data import Sampler, open_dataset, pack
from ganfast.data import packed as packed_module
from ganfast.data.images import to_frame
from ganfast.errors import InputError

NAMES = ("a/1.png", "a/2.png", "b/3.png", "b/4.png")


def same(one, other):
    assert list(one.columns) == list(other.columns)
    for name, values in one.columns.items():
        assert values.dtype == other.columns[name].dtype and torch.equal(values, other.columns[name]), name
    assert one.fingerprint() == other.fingerprint()
    return (one.name, one.names, one.absent) == (other.name, other.names, other.absent)


@pytest.mark.parametrize("options", [{}, {"size": 32}, {"channels": 1}])
def test_packed_equals_unpacked(folder, tmp_path, options):
    root, dest = str(folder(*NAMES)), str(tmp_path / "new" / "p.safetensors")
    data = open_dataset(root, **options)
    returned, opened = pack(root, dest, **options), open_dataset(dest)
    assert same(data, returned) and same(data, opened)
    assert opened.labels.tolist() == [0, 0, 1, 1] and opened.names == {"labels": ("a", "b")}
    assert os.listdir(tmp_path / "new") == ["p.safetensors"]


def test_the_file_says_what_it_holds(folder, tmp_path):
    root, dest = folder(*NAMES), str(tmp_path / "p.safetensors")
    (root / "a" / "bad.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"bad\.png"):
        pack(str(root), dest)
    assert not os.path.exists(dest)
    assert pack(str(root), dest, skip_bad=True).skipped == ("a/bad.png",)
    with safe_open(dest, framework="pt") as file:
        assert file.metadata() == {
            "format": "ganfast-packed-2",
            "name": "set",
            "size": "16",
            "channels": "3",
            "source": "5",
            "skipped": "1",
            "columns": '["images", "labels"]',
            "names": '{"labels": ["a", "b"]}',
            "absent": "{}",
        }
        assert file.get_tensor("images").shape == (4, 16, 16, 3)


def test_labels_after_an_odd_number_of_rows(folder, tmp_path):
    root = str(folder("a/1.png", "b/2.png", "c/3.png"))
    assert pack(root, str(tmp_path / "p.safetensors"), channels=1).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("source", ["digits", "gaussians:ring8"])
def test_built_in_sets_and_packed_files_can_be_packed(tmp_path, source):
    first, second = str(tmp_path / "1.safetensors"), str(tmp_path / "2.safetensors")
    data = open_dataset(source)
    assert same(data, pack(source, first)) and same(data, pack(first, second)) and same(data, open_dataset(second))


def test_packing_a_file_onto_itself(folder, tmp_path):
    dest = str(tmp_path / "p.safetensors")
    data = pack(str(folder(*NAMES)), dest)
    assert same(data, pack(dest, dest))


def test_any_number_of_channels(tmp_path):
    array = np.random.default_rng(0).integers(256, size=(3, 16, 16, 5), dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    data = pack(str(tmp_path / "x.npy"), str(tmp_path / "p.safetensors"))
    np.testing.assert_array_equal(data.samples.numpy(), array)


@pytest.mark.parametrize("option, word", [({"size": 32}, "--size 16"), ({"channels": 1}, "3 channels")])
def test_another_size_is_refused(folder, tmp_path, option, word):
    dest = str(tmp_path / "p.safetensors")
    pack(str(folder(*NAMES)), dest)
    assert len(open_dataset(dest, size=16, channels=3)) == 4
    with pytest.raises(InputError, match=f"{word}.*pack it again"):
        open_dataset(dest, **option)


def test_dest_must_be_safetensors(folder, tmp_path):
    with pytest.raises(InputError, match=r"p\.npz: .*use .*p\.npz\.safetensors"):
        pack(str(folder(*NAMES)), str(tmp_path / "p.npz"))


def test_dest_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dir.safetensors").mkdir()
    for dest in (tmp_path / "file" / "p.safetensors", tmp_path / "dir.safetensors"):
        with pytest.raises(InputError, match="cannot be written"):
            pack(str(folder(*NAMES)), str(dest))
    assert sorted(os.listdir(tmp_path)) == ["dir.safetensors", "file", "set"]


def test_interrupted_dest_stays_and_nothing_is_left(folder, tmp_path, monkeypatch):
    dest = tmp_path / "p.safetensors"
    dest.write_bytes(b"precious")

    def interrupted(image, frame):
        raise KeyboardInterrupt

    root = str(folder(*NAMES))
    monkeypatch.setattr("ganfast.data.files.to_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(root, str(dest), size=16, channels=3)
    assert dest.read_bytes() == b"precious" and sorted(os.listdir(tmp_path)) == ["p.safetensors", "set"]


SLOW_PACK = r"""
import os, sys, time
import ganfast.data.files as files
from ganfast.data import pack
to_frame, count = files.to_frame, 0
def slow(*args):
    global count
    count += 1
    if count > 300:
        os.write(1, b"midway\n")  # whole, whichever thread writes
        time.sleep(0.1)
    return to_frame(*args)
files.to_frame = slow
pack(sys.argv[1], sys.argv[2], size=128)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_midway_dest_stays_whole(folder, tmp_path, how):
    root, dest = str(folder(*(f"{k:03}.png" for k in range(400)))), tmp_path / "p.safetensors"
    dest.write_bytes(b"precious")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_PACK, root, str(dest)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout.readline() == b"midway\n"
        partial = [f for f in os.listdir(tmp_path) if f.endswith(".partial")]
        assert len(partial) == 1 and (tmp_path / partial[0]).stat().st_size > 4096
        process.send_signal(how)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert dest.read_bytes() == b"precious"
    if how == signal.SIGINT:
        assert sorted(os.listdir(tmp_path)) == ["p.safetensors", "set"]


def test_packing_holds_little_in_memory(folder, tmp_path, monkeypatch):
    """When a row is written, only the bounded stretch ahead of it has been decoded."""
    root = str(folder(*(f"{k:03}.png" for k in range(200))))
    written, ahead, lock_free = 0, [], []

    def counting(*args):
        lock_free.append(None)  # appending is atomic
        ahead.append(len(lock_free) - written)
        return to_frame(*args)

    monkeypatch.setattr("ganfast.data.files.to_frame", counting)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    real = packed_module.decoded

    def slowly(*args):
        nonlocal written
        for item in real(*args):
            written += 1
            time.sleep(0.001)
            yield item

    monkeypatch.setattr(packed_module, "decoded", slowly)
    pack(root, str(tmp_path / "p.safetensors"), size=256, channels=3)
    chunk = 2**20 // (256 * 256 * 3)
    assert 0 < max(ahead) <= 6 * chunk and len(lock_free) == 200


def test_opening_reads_nothing_and_a_batch_reads_its_rows(tmp_path):
    """A sparse file of 16 GiB: memory grows by far less when it is opened and drawn from."""
    count = 2**16
    path = tmp_path / "big.safetensors"
    with open(path, "wb") as file:
        layout = {"images": ("uint8", (count, 256, 256, 4))}
        file.write(packed_module.header(layout, ("images",), "big", count, {}, {}))
        file.truncate(file.tell() + count * 256 * 256 * 4)
    before = resident()
    data = open_dataset(str(path))
    assert len(data) == count and data.shape == (4, 256, 256)
    sampler = Sampler(data, 8, seed=0)
    for _ in range(3):
        assert (sampler.next()["images"] == -1).all()
    assert len(data.fingerprint()) > 16
    assert resident() - before < 2**28


def resident():
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("resident memory is read from /proc")
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("keep", [0, 5, 100, 4096, -1])
def test_truncated_file(folder, tmp_path, keep):
    dest = tmp_path / "p.safetensors"
    pack(str(folder(*NAMES)), str(dest))
    content = dest.read_bytes()
    dest.write_bytes(content[:keep])
    with pytest.raises(InputError, match=r"p\.safetensors: damaged.*pack it again"):
        open_dataset(str(dest))


@pytest.mark.parametrize(
    "tensors, metadata, reason",
    [
        ({"weight": torch.zeros(3)}, None, "not a packed data set"),
        ({"images": torch.zeros(2, 16, 16, 3)}, {"format": "other"}, "not a packed data set"),
        ({"images": torch.zeros(2, 16, 16, 3)}, {"format": "ganfast-packed-1"}, "tensors"),
        ({"weight": torch.zeros(3)}, {"format": "ganfast-packed-1"}, "pack it again"),
        ({"points": torch.zeros(3, 2), "labels": torch.zeros(2).long()}, {"format": "ganfast-packed-1"}, "tensors"),
        ({"points": torch.zeros(3, 0)}, {"format": "ganfast-packed-2"}, "tensors"),
        ({"points": torch.zeros(3, 2)}, {"format": "ganfast-packed-2", "columns": "["}, "tensors"),
        ({"points": torch.zeros(3, 2)}, {"format": "ganfast-packed-2", "columns": '["images"]'}, "tensors"),
        ({"points": torch.zeros(3, 2)}, {"format": "ganfast-packed-2", "names": "[1]"}, "tensors"),
        (
            {"points": torch.zeros(3, 2), "labels": torch.arange(3)},
            {"format": "ganfast-packed-2", "names": '{"labels": ["a", "b"]}'},
            "2 names and the class 2",
        ),
    ],
)
def test_other_safetensors_files_are_refused(tmp_path, tensors, metadata, reason):
    path = str(tmp_path / "w.safetensors")
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=rf"w\.safetensors: .*{reason}"):
        open_dataset(path)


@pytest.mark.parametrize("labels, classes, names", [([1, 0, 2], [1, 0, 2], "012"), ([7, 0, 7], [1, 0, 1], "07")])
def test_files_of_the_first_format_still_open(tmp_path, labels, classes, names):
    path = str(tmp_path / "p.safetensors")
    metadata = {"format": "ganfast-packed-1", "name": "old", "source": "3", "skipped": "0"}
    for kind, values in (("points", torch.randn(3, 2)), ("images", torch.ones(3, 16, 16, 1, dtype=torch.uint8))):
        save_file({kind: values, "labels": torch.tensor(labels)}, path, metadata)
        data = open_dataset(path)
        assert (data.name, list(data.columns), data.names) == ("old", [kind, "labels"], {"labels": tuple(names)})
        assert torch.equal(data.samples, values) and data.labels.tolist() == classes
        save_file({kind: values}, path, metadata)
        assert list(open_dataset(path).columns) == [kind]


def test_pairs_are_kept(folder, tmp_path, picture):
    root = folder(*NAMES)
    for name in NAMES:
        picture(len(name), 32).save(root / name)
    (root / "b" / "bad.png").write_bytes(b"")
    options = {"layout": "ba", "size": 32, "skip_bad": True}
    data = open_dataset(str(root), **options)
    packed = pack(str(root), str(tmp_path / "p.safetensors"), **options)
    assert list(data.columns) == ["images", "targets", "labels"] and same(data, packed)
    assert data.skipped == packed.skipped == ("b/bad.png",)
    assert same(data, pack(str(tmp_path / "p.safetensors"), str(tmp_path / "q.safetensors")))
    assert sorted(os.listdir(tmp_path)) == ["p.safetensors", "q.safetensors", "set"]
    with pytest.raises(InputError, match=r"packed at --size 32 .*--layout is for the images"):
        open_dataset(str(tmp_path / "p.safetensors"), layout="ab")


def test_every_column_is_kept(tmp_path):
    count, random = 5, np.random.default_rng(0)
    np.savez(
        tmp_path / "x.npz",
        images=random.integers(256, size=(count, 16, 16, 3), dtype=np.uint8),
        targets=random.integers(256, size=(count, 16, 16, 3), dtype=np.uint8),
        labels=np.array(["b", "a", "b", "c", "a"]),
        attributes=random.standard_normal((count, 3)),
        tokens=random.integers(9, size=(count, 3)),
        audio=random.integers(-9, 9, size=(count, 3)).astype(np.int16),
        clips=random.integers(256, size=(count, 1, 3, 5, 1), dtype=np.uint8),
        points=np.zeros((count + 1, 2)),
    )
    source, dest = str(tmp_path / "x.npz"), str(tmp_path / "p.safetensors")
    data = open_dataset(source)
    assert len(data.columns) == 7 and data.absent == {"points": "its array points: 6 rows for 5 samples"}
    assert same(data, pack(source, dest)) and same(data, pack(dest, str(tmp_path / "q.safetensors")))


@pytest.mark.parametrize("column", ["tokens", "audio", "clips"])
def test_data_sets_without_images(tmp_path, column):
    values = {
        "tokens": np.arange(6).reshape(3, 2),
        "audio": np.linspace(-1, 1, 15, dtype=np.float32).reshape(3, 5),
        "clips": np.arange(3 * 30, dtype=np.uint8).reshape(3, 1, 2, 5, 3),
    }
    np.savez(tmp_path / "x.npz", **{column: values[column], "y": np.arange(3)})
    data = pack(str(tmp_path / "x.npz"), str(tmp_path / "p.safetensors"))
    assert same(open_dataset(str(tmp_path / "x.npz")), data) and data.kind == column
    np.testing.assert_array_equal(data.samples.numpy(), values[column])


def test_names_of_any_length_and_why_labels_are_absent(folder, tmp_path):
    folders = [f"{k:04}-{'ü' * 50}" for k in range(100)]
    root = folder(*(f"{name}/1.png" for name in folders))
    (root / folders[0] / "1.png").write_bytes(b"")
    dest = str(tmp_path / "p.safetensors")
    assert pack(str(root), dest, skip_bad=True).names == {"labels": tuple(folders[1:])}
    (root / "0.png").write_bytes((root / folders[1] / "1.png").read_bytes())
    assert pack(str(root), dest, skip_bad=True).absent["labels"] == "1 of 100 files lie outside the folders of classes"


def test_names_that_only_come_with_the_last_row(folder, tmp_path):
    """The first row, which lies outside the folders, is bad: the header grows after the rows are written."""
    root = folder(*(f"{k:04}-{'ü' * 50}/1.png" for k in range(2000)))
    (root / "0.png").write_bytes(b"")
    dest = str(tmp_path / "p.safetensors")
    data = open_dataset(str(root), skip_bad=True)
    packed = pack(str(root), dest, skip_bad=True)
    assert same(data, packed) and packed.num_classes == 2000 and packed.skipped == ("0.png",)


def test_a_name_in_a_file_cannot_leave_the_run_directory(tmp_path):
    path = str(tmp_path / "p.safetensors")
    images = {"images": torch.zeros(2, 16, 16, 3, dtype=torch.uint8)}
    save_file(images, path, {"format": "ganfast-packed-1", "name": "../../etc/x y"})
    assert open_dataset(path).name == "etc-x-y"


def test_fingerprints_tell_data_apart(folder, tmp_path):
    root = folder(*NAMES)
    first = open_dataset(str(root))
    (root / "b" / "4.png").rename(root / "a" / "4.png")  # another label
    second = open_dataset(str(root))
    (root / "a" / "1.png").write_bytes((root / "a" / "2.png").read_bytes())
    third = open_dataset(str(root))
    grey = open_dataset(str(root), channels=1)
    assert len({d.fingerprint() for d in (first, second, third, grey)}) == 4
