"""IDX files: plain and gzipped, by file and by folder, with and without labels, and damaged."""

import gzip
import struct

import numpy as np
import pytest

from ganfast.data import open_dataset
from ganfast.errors import InputError

IMAGES = np.random.default_rng(0).integers(256, size=(6, 16, 16), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9], np.uint8)
CLASSES, NAMES = [1, 0, 2, 0, 3, 4], ("1", "3", "4", "5", "9")  # what they become


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """mnist(images=bytes, labels=bytes, gz=…) → the folder "toy" that holds them."""

    def write(images=None, labels=None, gz=True):
        root = tmp_path / "toy"
        root.mkdir(exist_ok=True)
        for kind, content in (("images-idx3", images or idx(IMAGES)), ("labels-idx1", labels or idx(LABELS))):
            for split in ("train", "t10k"):
                path = root / f"{split}-{kind}-ubyte{'.gz' if gz else ''}"
                path.write_bytes(gzip.compress(content) if gz else content)
        return root

    return write


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("by_file", [True, False])
def test_images_and_labels(mnist, gz, by_file):
    root = mnist(gz=gz)
    data = open_dataset(str(root / f"train-images-idx3-ubyte{'.gz' if gz else ''}" if by_file else root))
    np.testing.assert_array_equal(data.samples[..., 0].numpy(), IMAGES)
    assert data.labels.tolist() == CLASSES and data.names == {"labels": NAMES}
    assert data.name == "toy" and data.shape == (1, 16, 16)


def test_without_labels(mnist):
    root = mnist()
    (root / "train-labels-idx1-ubyte.gz").unlink()
    data = open_dataset(str(root))
    assert data.labels is None and data.absent == {}


def test_gzipped_images_beside_plain_labels(mnist):
    root = mnist()
    packed = root / "train-labels-idx1-ubyte.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert open_dataset(str(root)).labels.tolist() == CLASSES


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize(
    "content, reason",
    [
        (idx(IMAGES)[:-1], "6 × 16 × 16 values but it holds fewer"),
        (idx(IMAGES) + b"x", "6 × 16 × 16 values but it holds more"),
        (idx(IMAGES)[:10], "cut off"),
        (idx(LABELS), "begins with 00000801"),
        (b"hello", "begins with 68656c6c"),
        (idx(IMAGES[:0]), "empty"),
        (idx(IMAGES[:, :4]), "16×4 pixels"),
    ],
)
def test_bad_images_are_named(mnist, gz, content, reason):
    with pytest.raises(InputError, match=rf"train-images-idx3-ubyte.*{reason}"):
        open_dataset(str(mnist(content, gz=gz)))


def test_a_header_that_claims_more_than_memory(mnist):
    with pytest.raises(InputError, match="GiB"):
        open_dataset(str(mnist(bytes((0, 0, 8, 3)) + b"\xff" * 12)))


@pytest.mark.parametrize(
    "content, reason",
    [
        (idx(LABELS[:5]), "5 labels for 6 samples"),
        (idx(LABELS)[:-1], "train-labels-idx1-ubyte.gz: its header says 6 values but it holds fewer"),
        (idx(IMAGES), "train-labels-idx1-ubyte.gz: begins with 00000803"),
        (b"x", "train-labels-idx1-ubyte.gz: begins with 78"),
    ],
)
def test_bad_labels_are_left_out_with_the_reason(mnist, content, reason):
    data = open_dataset(str(mnist(labels=content)))
    assert len(data) == 6 and list(data.columns) == ["images"] and data.absent["labels"].startswith(reason)


def test_a_damaged_file_of_labels_is_left_out(mnist):
    root = mnist()
    path = root / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert "damaged or truncated" in open_dataset(str(root)).absent["labels"]


@pytest.mark.parametrize("damage", ["cut", "garbled", "not gzip"])
def test_damaged_gzip_is_named(mnist, damage):
    path = mnist() / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    garbled = content[:100] + bytes(50) + content[150:]
    path.write_bytes({"cut": content[:-200], "garbled": garbled, "not gzip": b"hello"}[damage])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: "):
        open_dataset(str(path))
