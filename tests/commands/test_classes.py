"""``ganfast generate`` of recipes that are given labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import small
from PIL import Image

from ganfast import load
from ganfast.cli import main
from ganfast.commands import drawing
from ganfast.data.columns import Spec
from ganfast.training.pictures import to_uint8
from ganfast.training.sampling import sample


def names(folder: str = "generated") -> set[str]:
    """Names of the samples, and of what lies beside them."""
    found = {path.name for path in Path(folder).glob("[!.]*")} - {"samples"}
    return found | {path.name for path in Path(folder, "samples").glob("*")}


def expected(file: str, seeds: list[int], classes: list[int]) -> np.ndarray:
    return to_uint8(sample(load(file), seeds, None, {"y": torch.tensor(classes)}))


def cells(file: str, side: int = 16) -> np.ndarray:
    """The images of a grid at twice their size, [rows, columns, side, side]."""
    picture = np.asarray(Image.open(file))[::2, ::2]
    rows, columns = ((n + 2) // (side + 2) for n in picture.shape)
    padded = np.pad(picture, ((0, 2), (0, 2)))
    return padded.reshape(rows, side + 2, columns, side + 2).swapaxes(1, 2)[:, :, :side, :side]


def test_a_row_for_each_class_and_a_column_for_each_seed(capsys):
    file = small.cgan()
    assert main(["generate", "--network", file, "--classes", "7,dog", "--seeds", "0-1,40", "--batch", "2"]) == 0
    assert "wrote 6 pictures to generated/samples, and generated/grid.png" in capsys.readouterr().out
    assert names() == {f"class{k}-seed{s:06d}.png" for k in (3, 1) for s in (0, 1, 40)} | {"grid.png"}
    grid = cells("generated/grid.png")
    assert grid.shape[:2] == (2, 3)
    for row, k in enumerate((3, 1)):
        for column, seed in enumerate((0, 1, 40)):
            image = np.asarray(Image.open(f"generated/samples/class{k}-seed{seed:06d}.png"))
            assert np.array_equal(image, grid[row, column])
            assert np.array_equal(image, expected(file, [seed], [k])[0, :, :, 0])


def test_few_classes_are_all_shown_and_many_in_turn():
    file = small.cgan()
    assert main(["generate", "--network", file]) == 0
    assert len(names()) == 4 * 8 + 1 and cells("generated/grid.png").shape[:2] == (4, 8)
    many = small.cgan(y=Spec("labels", (), tuple(map(str, range(120)))))
    assert main(["generate", "--network", many, "--outdir", "many"]) == 0
    assert len(names("many")) == 64 + 1 and {"class000-seed000000.png", "class063-seed000063.png"} <= names("many")


def test_seeds_alone_have_a_class_in_turn():
    file = small.cgan()
    assert main(["generate", "--network", file, "--seeds", "4-11"]) == 0
    assert names() == {f"class{s % 4}-seed{s:06d}.png" for s in range(4, 12)} | {"grid.png"}
    grid = cells("generated/grid.png")
    assert grid.shape[:2] == (2, 4)
    assert np.array_equal(grid[1, 2], expected(file, [10], [2])[0, :, :, 0])
    assert main(["generate", "--network", file, "--seeds", "1,2", "--outdir", "two"]) == 0
    assert cells("two/grid.png").shape[:2] == (1, 2)


def test_arrays_have_labels():
    file = small.cgan()
    assert main(["generate", "--network", file, "--seeds", "2-6", "--npz", "--batch", "3"]) == 0
    with np.load("generated/samples.npz") as archive:
        assert archive["labels"].tolist() == [2, 3, 0, 1, 2] and archive["labels"].dtype == np.int64
        assert np.array_equal(archive["images"], expected(file, [2, 3, 4, 5, 6], [2, 3, 0, 1, 2]))
    assert main(["generate", "--network", file, "--seeds", "5,9", "--classes", "cat,7", "--npz", "--overwrite"]) == 0
    with np.load("generated/samples.npz") as archive:
        assert archive["labels"].tolist() == [0, 0, 3, 3] and archive["seeds"].tolist() == [5, 9, 5, 9]
        assert np.array_equal(archive["images"], expected(file, [5, 9, 5, 9], [0, 0, 3, 3]))


def test_a_grid_and_a_walk_of_chosen_classes():
    file = small.cgan()
    assert main(["generate", "--network", file, "--classes", "1,3", "--grid", "5x4"]) == 0
    grid = cells("generated/grid.png").reshape(20, 16, 16)
    assert names() == {"grid.png"}
    assert np.array_equal(grid[9], expected(file, [9], [1])[0, :, :, 0])
    assert np.array_equal(grid[10], expected(file, [0], [3])[0, :, :, 0])
    assert main(["generate", "--network", file, "--classes", "1,3", "--interpolate", "6,8,2", "--outdir", "walk"]) == 0
    strip = cells("walk/interpolation.png")
    assert strip.shape[:2] == (4, 16)
    for place, seed, k in (((0, 0), 6, 1), ((0, 15), 8, 1), ((1, 15), 2, 1), ((2, 0), 6, 3), ((3, 15), 2, 3)):
        assert np.array_equal(strip[place], expected(file, [seed], [k])[0, :, :, 0])
    assert main(["generate", "--network", file, "--interpolate", "6,9", "--outdir", "one"]) == 0  # of the first's class
    assert np.array_equal(cells("one/interpolation.png")[0, 15], expected(file, [9], [2])[0, :, :, 0])


def test_the_grid_of_many_classes_and_seeds_is_bounded(monkeypatch, capsys):
    monkeypatch.setattr(drawing, "SHOWN", 6)
    assert main(["generate", "--network", small.cgan(), "--classes", "0-2", "--seeds", "0-4", "--batch", "4"]) == 0
    assert "15 pictures to generated/samples, and generated/grid.png (6 of them)" in capsys.readouterr().out
    assert cells("generated/grid.png").shape[:2] == (3, 2)


def test_codes_of_the_recipe_are_classes_too():
    file = small.infogan()
    assert main(["generate", "--network", file, "--classes", "2", "--seeds", "5"]) == 0
    given = {"c": torch.tensor([2]), "u": torch.zeros(1, 2)}
    wanted = to_uint8(sample(load(file), [5], None, given))[0, :, :, 0]
    assert np.array_equal(np.asarray(Image.open("generated/samples/class2-seed000005.png")), wanted)


def test_without_latents_a_class_is_one_picture(fails):
    file = small.saved(small.ByClass())
    assert main(["generate", "--network", file, "--classes", "dog,cat"]) == 0
    assert names() == {"class0.png", "class1.png", "grid.png"} and cells("generated/grid.png").shape[:2] == (2, 1)
    assert main(["generate", "--network", file, "--npz", "--classes", "1", "--outdir", "n"]) == 0
    with np.load("n/samples.npz") as archive:
        assert set(archive) == {"images", "labels"}
    for option in (["--seeds", "0-3"], ["--interpolate", "1,2"], ["--truncation", "0.5"]):
        message = fails("generate", "--network", file, *option)
        assert option[0] in message and "recipe by-class draws no latents" in message and "leave it out" in message


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--classes", ""], ["'' is not a class"]),
        (["--seeds", ""], ["'' is not a list of seeds"]),
        (["--grid", ""], ["'' is not a grid"]),
        (["--classes", "bird"], ["--classes bird", "'bird' is not a class"]),
        (["--classes", "0-9"], ["'0-9' is not a class"]),
        (
            ["--classes", "1,2", "--seeds", "0-3", "--grid", "5x2"],
            ["10 samples", "4 seeds and 2 of the classes give 8"],
        ),
        (["--direction", "ab"], ["--direction ab", "recipe cgan has no directions"]),
        (["--input", "digits"], ["--input digits", "recipe cgan", "neither translates nor reconstructs"]),
    ],
)
def test_what_does_not_fit_labels_is_refused(argv, words, fails):
    message = fails("generate", "--network", small.cgan(), *argv)
    assert all(word in message for word in words), message


def test_recipes_that_are_given_no_labels(fails):
    for file in (small.dcgan(), small.gan(), small.began()):
        message = fails("generate", "--network", file, "--classes", "3")
        assert "--classes 3" in message and "is not given labels" in message


def test_what_no_command_can_make(fails):
    message = fails("generate", "--network", small.saved(small.Captions()))
    assert "recipe captions is given tokens (t)" in message and "ganfast.load" in message


def test_samples_that_are_no_pictures(fails):
    file = small.saved(small.Sounds())
    assert "recipe sounds makes samples of 1×20" in fails("generate", "--network", file)
    assert "--grid 2x2" in fails("generate", "--network", file, "--grid", "2x2")
    assert main(["generate", "--network", file, "--npz", "--seeds", "0-2"]) == 0
    with np.load("generated/samples.npz") as archive:
        assert archive["samples"].shape == (3, 1, 20) and archive["samples"].dtype == np.float32
