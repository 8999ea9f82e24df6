import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import small
from PIL import Image

from ganfast import load
from ganfast.cli import main
from ganfast.commands import drawing
from ganfast.commands.choices import parse_classes, parse_grid, parse_seeds
from ganfast.data.columns import Spec
from ganfast.errors import InputError
from ganfast.recipes import DCGAN
from ganfast.training.pictures import to_uint8
from ganfast.training.sampling import sample


def files(folder: str) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in Path(folder).rglob("[!.]*") if path.is_file()}  # fmt: skip


def test_seeds_are_ranges():
    assert parse_seeds("0-3,9, 11-11") == [range(4), range(9, 10), range(11, 12)]
    assert sum(map(len, parse_seeds("0-999999999999"))) == 10**12
    for text in ("", "a", "3-", "9-3", "1..4", "5,9-3", str(2**63)):
        with pytest.raises(InputError, match="seed"):
            parse_seeds(text)


def test_classes_are_numbers_names_and_ranges():
    names = ("cat", "dog", "t-shirt", "7")
    assert parse_classes("3,0", names) == [3, 0] and parse_classes("0-2", names) == [0, 1, 2]
    assert parse_classes("dog, t-shirt,dog", names) == [1, 2] and parse_classes("cat-t-shirt", names) == [0, 1, 2]
    assert parse_classes("7", names) == [3]  # a name goes before a number
    assert parse_classes("1-2", ("1", "2", "5")) == [0, 1]
    assert parse_classes("a", ("a", "b", "a")) == [0]
    for text, words in (
        ("4", "'4' is not a class: give numbers from 0 to 3, or names: cat, dog, t-shirt, 7"),
        ("dgo", "'dgo' is not a class: did you mean dog?"),
        ("2-0", "'2-0' is not a class"),
        ("1,", "'' is not a class"),
        ("-1", "'-1' is not a class"),
    ):
        with pytest.raises(InputError, match="--classes") as caught:
            parse_classes(text, names)
        assert words in str(caught.value)
    with pytest.raises(InputError, match=r"0 to 999, or names: 0, 1, .*, 9, …"):
        parse_classes("x", tuple(map(str, range(1000))))


def test_grids():
    assert parse_grid("8x4") == (8, 4)
    for text in ("8", "8x", "0x3", "axb", "-1x2"):
        with pytest.raises(InputError, match="grid"):
            parse_grid(text)


@pytest.mark.parametrize("what", [[], ["--npz"], ["--grid", "5x4"]], ids=["singles", "npz", "grid"])
def test_every_batch_size_writes_the_same_files(trained, what):
    for batch in (1, 7, 64):
        argv = ["generate", "--network", str(trained), "--seeds", "3,20-39", *what]
        assert main([*argv, "--batch", str(batch), "--outdir", f"of-{batch}"]) == 0
    assert files("of-1") == files("of-7") == files("of-64") != {}


def test_npz_holds_images_and_seeds(trained, capsys):
    assert main(["generate", "--network", str(trained), "--seeds", "5-9,2", "--npz", "--batch", "4"]) == 0
    assert "wrote generated/samples.npz with the images of 6 seeds" in capsys.readouterr().out
    assert list(files("generated")) == ["samples.npz"]
    with np.load("generated/samples.npz", allow_pickle=False) as archive:
        assert archive["seeds"].tolist() == [5, 6, 7, 8, 9, 2] and archive["seeds"].dtype == np.int64
        expected = to_uint8(sample(load(trained), [5, 6, 7, 8, 9, 2]))
        assert np.array_equal(archive["images"], expected) and expected.shape == (6, 16, 16, 1)


def test_points_as_npy_and_npz():
    argv = ["generate", "--network", small.gan(), "--seeds", "0-99", "--batch", "9"]
    assert main(argv) == 0 and main([*argv, "--npz"]) == 0
    points = np.load("generated/points.npy")
    assert points.shape == (100, 2) and points.dtype == np.float32
    with np.load("generated/samples.npz") as archive:
        assert np.array_equal(archive["points"], points) and archive["seeds"].tolist() == list(range(100))


def test_the_grid_beside_many_pictures_is_bounded(trained, monkeypatch, capsys):
    monkeypatch.setattr(drawing, "SHOWN", 9)
    assert main(["generate", "--network", str(trained), "--seeds", "0-10", "--batch", "4"]) == 0
    assert "11 pictures to generated/samples, and generated/grid.png (the first 9)" in capsys.readouterr().out
    assert len(files("generated")) == 12
    with Image.open("generated/grid.png") as grid:
        assert grid.size == (2 * (3 * 18 - 2), 2 * (3 * 18 - 2))


def test_a_walk_begins_and_ends_at_its_seeds(trained):
    assert main(["generate", "--network", str(trained), "--interpolate", "4,9"]) == 0
    first, last = to_uint8(sample(load(trained), [4, 9]))[..., 0]
    strip = np.asarray(Image.open("generated/interpolation.png"))[::2, ::2]
    assert np.array_equal(strip[:16, :16], first) and np.array_equal(strip[:, -16:], last)
    with Image.open("generated/interpolation.gif") as gif:
        assert np.array_equal(np.asarray(gif.convert("L")), first)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--npz", "--grid", "2x2"], ["--grid and --npz"]),
        (["--show", "--interpolate", "1,2"], ["--interpolate and --show"]),
        (["--batch", "0"], ["--batch", "0"]),
        (["--seeds", "0-9999999", "--grid", "2000x2000"], ["2000x2000", "71996×71996"]),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(argv, words, trained, fails):
    message = fails("generate", "--network", trained, *argv)
    assert all(word in message for word in words) and not Path("generated").exists()


def test_images_of_points_are_refused(fails):
    small.gan()
    for option in (["--show"], ["--grid", "2x2"], ["--interpolate", "1,2"]):
        assert option[0] in fails("generate", "--network", "generator.safetensors", *option)


def test_a_failed_write_leaves_no_half_file(trained, monkeypatch, capsys):
    def full(file, shape, dtype):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawing, "write_header", full)
    assert main(["generate", "--network", str(trained), "--npz"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("ganfast: ") and err.count("\n") == 1 and "No space left" in err
    assert files("generated") == {}


MEMORY = """
import contextlib, io, resource, sys
from ganfast.cli import main
for last in (256, 20_000):
    argv = ["generate", "--network", "generator.safetensors", "--seeds", f"0-{last}", "--npz", "--overwrite"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(argv) == 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_seeds():
    small.saved(DCGAN(width=1, latent_dim=4), x=Spec("images", (3, 16, 16)))
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=300)
    few, many = map(int, result.stdout.split())  # KiB
    assert many - few < 6_000  # the images are 15 MB as bytes and 61 MB as fp32
    with np.load("generated/samples.npz") as archive:
        assert archive["images"].shape == (20_001, 16, 16, 3)
