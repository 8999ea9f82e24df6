"""The film of a run's pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganfast.cli import main
from ganfast.commands.animate import CAPTION, LAST, SIDE


def leave(pictures: dict[int, Image.Image], run: str = "run") -> str:
    Path(run).mkdir()
    for step, picture in pictures.items():
        picture.save(Path(run, f"fakes-{step:06d}.png"))
    return run


def shades(path: str, at=(5, 5)) -> list:
    """The colour of one pixel in each frame."""
    with Image.open(path) as film:
        found = []
        for k in range(film.n_frames):
            film.seek(k)
            found.append(film.convert("RGB").getpixel(at))
    return found


def grey(shade: int, size=(40, 30)) -> Image.Image:
    return Image.new("L", size, shade)


def test_pictures_follow_one_another_by_step(capsys):
    run = leave({step: grey(step // 10000) for step in (900000, 0, 1200000, 100000)})
    grey(0).save("run/fakes.png")
    assert main(["animate", run, "--fps", "4"]) == 0
    assert capsys.readouterr().out == "wrote run/animation.gif: 4 pictures, steps 0 to 1200000\n"
    assert [shade for shade, _, _ in shades("run/animation.gif")] == [0, 10, 90, 120]
    with Image.open("run/animation.gif") as film:
        assert film.size == (40, 30 + CAPTION)
        times = []
        for k in range(4):
            film.seek(k)
            times.append(film.info["duration"])
            caption = np.asarray(film.convert("L"))[30:]
            assert caption.min() < 64 and caption.max() == 255  # the step's number
    assert times == [250, 250, 250, LAST]


def test_of_many_pictures_some_are_taken(capsys):
    run = leave({step: grey(step) for step in range(0, 250, 10)})
    assert main(["animate", run, "--frames", "3", "-o", "a.gif"]) == 0
    assert "wrote a.gif: 3 of 25 pictures, steps 0 to 240" in capsys.readouterr().out
    assert [shade for shade, _, _ in shades("a.gif")] == [0, 120, 240]


def test_sizes_and_colours_may_change_within_a_run():
    run = leave({0: grey(50, (20, 20)), 1: Image.new("RGB", (2 * SIDE, SIDE), (255, 0, 0))})
    assert main(["animate", run]) == 0
    with Image.open("run/animation.gif") as film:
        assert film.size == (SIDE, SIDE // 2 + CAPTION)
    assert shades("run/animation.gif", (SIDE - 1, SIDE // 2 - 1)) == [(50, 50, 50), (255, 0, 0)]


def test_a_run_of_training_is_animated(trained, capsys):
    assert main(["animate", str(trained), "-o", "a.gif"]) == 0
    assert "2 pictures, steps 0 to 2" in capsys.readouterr().out


def test_what_cannot_be_animated_is_said(fails):
    assert "nowhere is not a directory: give a run" in fails("animate", "nowhere")
    run = leave({0: grey(0)})
    assert "run has 1 fakes-STEP.png: give a run that has left two or more" in fails("animate", run)
    Path("run/fakes-000005.png").write_bytes(Path("run/fakes-000000.png").read_bytes()[:40])
    assert "run/fakes-000005.png cannot be decoded" in fails("animate", run)
    grey(9).save("run/fakes-000005.png")
    assert "no is not a directory: give another file (--output)" in fails("animate", run, "-o", "no/a.gif")
    for option, value in (("--fps", "0"), ("--fps", "nan"), ("--frames", "1")):
        assert f"{option} must be" in fails("animate", run, option, value)


@pytest.fixture(autouse=True)
def nothing_half_written():
    yield
    assert not [*Path().rglob("*.partial")]
