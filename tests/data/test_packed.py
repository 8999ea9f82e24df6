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

from ganfast.data import Stream, open_dataset, pack
from ganfast.data import packed as packed_module
from ganfast.data.images import decode
from ganfast.errors import InputError

NAMES = ("a/1.png", "a/2.png", "b/3.png", "b/4.png")


def same(one, other):
    labels = (one.labels is None and other.labels is None) or torch.equal(one.labels, other.labels)
    return torch.equal(one.samples, other.samples) and labels and one.name == other.name


@pytest.mark.parametrize("options", [{}, {"size": 32}, {"channels": 1}])
def test_packed_equals_unpacked(folder, tmp_path, options):
    root, dest = str(folder(*NAMES)), str(tmp_path / "new" / "p.safetensors")
    data = open_dataset(root, **options)
    returned, opened = pack(root, dest, **options), open_dataset(dest)
    assert same(data, returned) and same(data, opened)
    assert data.fingerprint() == opened.fingerprint()
    assert opened.labels.tolist() == [0, 0, 1, 1]
    assert os.listdir(tmp_path / "new") == ["p.safetensors"]


def test_the_file_says_what_it_holds(folder, tmp_path):
    root, dest = folder(*NAMES), str(tmp_path / "p.safetensors")
    (root / "bad.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"bad\.png"):
        pack(str(root), dest)
    assert not os.path.exists(dest)
    assert pack(str(root), dest, skip_bad=True).skipped == ("bad.png",)
    with safe_open(dest, framework="pt") as file:
        assert file.metadata() == {
            "format": "ganfast-packed-1",
            "name": "set",
            "size": "16",
            "channels": "3",
            "source": "5",
            "skipped": "1",
        }
        assert file.get_tensor("images").shape == (4, 16, 16, 3)


def test_labels_after_an_odd_number_of_rows(folder, tmp_path):
    root = str(folder("a/1.png", "b/2.png", "c/3.png"))
    assert pack(root, str(tmp_path / "p.safetensors"), channels=1).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("source", ["digits", "gaussians:ring8"])
def test_built_in_sets_and_packed_files_can_be_packed(tmp_path, source):
    first, second = str(tmp_path / "1.safetensors"), str(tmp_path / "2.safetensors")
    data = open_dataset(source)
    assert same(data, pack(source, first)) and same(data, pack(first, second))
    assert data.fingerprint() == open_dataset(second).fingerprint()


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

    def interrupted(file, size, channels):
        raise KeyboardInterrupt

    root = str(folder(*NAMES))
    monkeypatch.setattr("ganfast.data.files.decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(root, str(dest), size=16, channels=3)
    assert dest.read_bytes() == b"precious" and sorted(os.listdir(tmp_path)) == ["p.safetensors", "set"]


SLOW_PACK = r"""
import os, sys, time
import ganfast.data.files as files
from ganfast.data import pack
decode, count = files.decode, 0
def slow(*args):
    global count
    count += 1
    if count > 300:
        os.write(1, b"midway\n")  # whole, whichever thread writes
        time.sleep(0.1)
    return decode(*args)
files.decode = slow
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
        partial = [f for f in os.listdir(tmp_path) if f.endswith(".tmp")]
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
        return decode(*args)

    monkeypatch.setattr("ganfast.data.files.decode", counting)
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
        file.write(packed_module.header((count, 256, 256, 4), False, "big", count))
        file.truncate(packed_module.HEADER + count * 256 * 256 * 4)
    before = resident()
    data = open_dataset(str(path))
    assert len(data) == count and data.shape == (4, 256, 256)
    stream = Stream(data, 8, seed=0)
    for _ in range(3):
        assert (stream.next() == -1).all()
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
        ({"images": torch.zeros(2, 16, 8, 3, dtype=torch.uint8)}, {"format": "ganfast-packed-1"}, "tensors"),
        ({"weight": torch.zeros(3)}, {"format": "ganfast-packed-1"}, "pack it again"),
        ({"points": torch.zeros(3, 2), "labels": torch.zeros(2).long()}, {"format": "ganfast-packed-1"}, "tensors"),
    ],
)
def test_other_safetensors_files_are_refused(tmp_path, tensors, metadata, reason):
    path = str(tmp_path / "w.safetensors")
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=rf"w\.safetensors: .*{reason}"):
        open_dataset(path)


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
