"""Grids between four seeds, and arithmetic on mean latents."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import small
from PIL import Image

from ganfast import load, models
from ganfast.cli import main
from ganfast.commands.choices import parse_arithmetic
from ganfast.commands.latent_space import NEAR, rows_between
from ganfast.errors import InputError
from ganfast.recipes import DCGAN
from ganfast.training.pictures import GAP, to_uint8
from ganfast.training.sampling import decode, sample

SIZE = 16  # of the images that the small recipes make


def cells(path: str) -> np.ndarray:
    """A grid of grey images as it was put together: [rows, columns, SIZE, SIZE]."""
    picture = np.asarray(Image.open(path))[::2, ::2]
    picture = np.pad(picture, ((0, GAP), (0, GAP)))
    rows, columns = (side // (SIZE + GAP) for side in picture.shape)
    return picture.reshape(rows, SIZE + GAP, columns, SIZE + GAP).swapaxes(1, 2)[:, :, :SIZE, :SIZE]


def drawn(z: torch.Tensor, **given) -> np.ndarray:
    return to_uint8(decode(load("generator.safetensors"), {"z": z, **given}))[..., 0]


def wide() -> str:
    """Random weights that no ReLU can turn into a constant."""
    return small.saved(DCGAN(width=16, latent_dim=4))


def generate(path: str, *argv: str) -> None:
    assert main(["generate", "--network", path, "--outdir", "g", *argv]) == 0


def test_four_seeds_are_the_corners():
    generate(wide(), "--interpolate-grid", "4,9,0,77")
    made = cells("g/interpolation-grid.png")
    corners = to_uint8(sample(load("generator.safetensors"), [4, 9, 0, 77]))[..., 0]
    assert made.shape[:2] == (8, 8)
    assert np.array_equal(made[[0, 0, 7, 7], [0, 7, 0, 7]], corners)
    assert len(np.unique(made.reshape(64, -1), axis=0)) > 8


def test_between_four_latents_of_one_length_all_have_that_length():
    a, b, c, d = torch.nn.functional.normalize(torch.randn(4, 50, dtype=torch.float64))
    rows = torch.stack([*rows_between(a, b, c, d)])
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(8, 8, dtype=torch.float64))
    flipped = torch.stack([*rows_between(b, a, d, c)])
    torch.testing.assert_close(rows.flip(1), flipped)
    torch.testing.assert_close(rows[[0, 0, 7, 7], [0, 7, 0, 7]], torch.stack([a, b, c, d]))


def test_arithmetic_shows_groups_means_and_what_is_near_the_result(capsys):
    generate(wide(), "--arithmetic", "1,2 - 4-6 + 7")
    assert "arithmetic.png: the seeds of each group and their mean, and below 1,2 - 4-6 + 7" in capsys.readouterr().out
    made = cells("g/arithmetic.png")
    assert made.shape[:2] == (3 + 1 + 3, 4)
    one, two, three = (models.latents(seeds, 4) for seeds in ([1, 2], [4, 5, 6], [7]))
    assert np.array_equal(made[0, :2], drawn(one)) and np.array_equal(made[1, :3], drawn(two))
    means = torch.stack([one.mean(0), two.mean(0), three.mean(0)])
    assert np.array_equal(made[:3, 3], drawn(means))
    result = means[0] - means[1] + means[2]
    assert np.array_equal(made[5, 1], drawn(result[None])[0])
    assert len(np.unique(made[4:, :3].reshape(9, -1), axis=0)) > 1
    empty = [*made[3], *made[4:, 3], made[0, 2], *made[2, 1:3]]
    assert all((cell == 128).all() for cell in empty)
    assert NEAR == 0.25  # the paper's


def test_classes_lie_below_one_another():
    small.cgan()
    generate("generator.safetensors", "--arithmetic", "1 + 2", "--classes", "3,0")
    made = cells("g/arithmetic.png")
    result = models.latents([1, 2], 4).sum(0, keepdim=True)
    for top, k in ((0, 3), (6, 0)):
        assert np.array_equal(made[top + 4, 1], drawn(result, y=torch.tensor([k]))[0])
    generate("generator.safetensors", "--interpolate-grid", "6,1,2,3")  # class 6 mod 4
    first = drawn(models.latents([6], 4), y=torch.tensor([2]))[0]
    made = cells("g/interpolation-grid.png")
    assert np.array_equal(made[0, 0], first) and made.shape[0] == 8


def test_groups_are_read_as_they_are_written():
    assert parse_arithmetic("1,2,3 - 4-6 + 7") == [(1, [1, 2, 3]), (-1, [4, 5, 6]), (1, [7])]
    assert parse_arithmetic("  1 +\t2, 3 ") == [(1, [1]), (1, [2, 3])]
    for text in ("1,2,3", "1,2-3,4", "1,2+3,4", "1 -", "- 1", "1 + + 2", "1 - a", ""):
        with pytest.raises(InputError, match=r"--arithmetic .* is not two groups of seeds or more: give seeds as in"):
            parse_arithmetic(text)
    with pytest.raises(InputError, match="a group of 17 seeds: give at most 16"):
        parse_arithmetic("0-16 + 1")


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--interpolate-grid", "1,2,3"], "--interpolate-grid 1,2,3: needs four seeds, as in 3,7,19,42"),
        (["--interpolate-grid", "1-4", "--npz"], "--interpolate-grid and --npz make different things"),
        (["--arithmetic", "1 + 2", "--interpolate", "1,2"], "--interpolate and --arithmetic make different things"),
        (["--arithmetic", "1 + 2"], "--arithmetic 1 + 2: it shows images, and recipe gan makes points: leave it out"),
        (["--interpolate-grid", "1-4"], "recipe gan makes points"),
    ],
)
def test_what_makes_no_sense_is_refused(argv, words, fails):
    assert words in fails("generate", "--network", small.gan(), *argv)


def test_recipes_without_latents_have_nothing_to_add(fails):
    argv = ["generate", "--network", "generator.safetensors", "--arithmetic", "1 + 2"]
    small.saved(small.ByClass())
    assert "--arithmetic 1 + 2: recipe by-class draws no latents" in fails(*argv)
    small.cyclegan()
    assert "--input and --arithmetic make different things" in fails(*argv, "--input", "x.png")


def test_what_was_written_may_be_overwritten(fails):
    generate(small.dcgan(), "--arithmetic", "1 + 2")
    argv = ["generate", "--network", "generator.safetensors", "--outdir", "g", "--arithmetic", "1 + 2"]
    assert "g/arithmetic.png is there already" in fails(*argv)
    generate("generator.safetensors", "--interpolate-grid", "1-4", "--overwrite")
    assert {path.name for path in Path("g").iterdir()} == {".generated", "interpolation-grid.png"}
