"""The game x·y: what its iterates do in closed form, and the command that shows it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganfast.cli import main
from ganfast.commands import xy_game

RATES = (0.05, 0.3, 0.9)


@pytest.mark.parametrize("rate", RATES)
def test_iterates_are_powers_of_a_complex_number(rate):
    start = (0.6, -0.8)
    t = np.arange(41)
    for update, factor in (
        (xy_game.simultaneous, 1 + 1j * rate),
        (xy_game.extragradient, 1 - rate**2 + 1j * rate),
    ):
        path = xy_game.play(update, rate, 40, start)
        expected = complex(*start) * factor**t
        np.testing.assert_allclose(path, np.stack([expected.real, expected.imag], 1), rtol=1e-12, atol=1e-12)
        assert xy_game.growth(np.hypot(*path.T)) == pytest.approx(abs(factor), abs=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_alternating_keeps_its_ellipse_and_turns_by_a_fixed_angle(rate):
    x, y = xy_game.play(xy_game.alternating, rate, 500, (0.6, -0.8)).T
    np.testing.assert_allclose(x * x + y * y - rate * x * y, 1 + 0.48 * rate, rtol=1e-12)
    np.testing.assert_allclose(x[2:], (2 - rate**2) * x[1:-1] - x[:-2], atol=1e-12)  # 2 cos θ = 2 − α²


@pytest.mark.parametrize("rate", RATES)
def test_the_mean_is_bounded_by_one_over_t(rate):
    path = xy_game.play(xy_game.alternating, rate, 1000)
    means = xy_game.averages(path)
    np.testing.assert_allclose(means[99], path[:100].mean(0), rtol=1e-12)
    step = np.array([[1, -rate], [rate, 1 - rate**2]])
    sums = np.linalg.solve(step - np.eye(2), (path[1:] - path[0]).T).T  # (Mᵗ − I)(M − I)⁻¹ w₀
    np.testing.assert_allclose(means[:-1] * np.arange(1, 1001)[:, None], sums, atol=1e-9)
    assert xy_game.power(np.hypot(*means.T)) == pytest.approx(-1, abs=0.02)
    assert xy_game.power(np.arange(1, 1000) ** -0.5) == pytest.approx(-0.5, abs=1e-6)  # and sees another one


def test_theory_agrees_with_what_is_measured():
    for each in xy_game.all_ways(0.2, 400):
        assert each.measured == pytest.approx(each.theory, abs=0.01 if each.kind == "power" else 1e-4), each.name


def test_the_command_writes_a_table_a_picture_and_a_film(capsys):
    assert main(["demo", "xy", "--steps", "20", "--rate", "0.5", "--outdir", "out/here"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["simultaneous", "1", "9.313", "×1.11803", "a", "step", "×1.11803", "a", "step"]
    assert [line.split()[0] for line in lines[4:7]] == ["alternating", "averaging", "extragradient"]
    with Image.open("out/here/xy.png") as picture, Image.open("out/here/xy.gif") as film:
        assert film.size == picture.size and film.n_frames == 21
        first = np.asarray(film.convert("RGB")).astype(int)
        film.seek(20)
        last = np.asarray(film.convert("RGB")).astype(int)
    assert (first != last).any(-1).sum() > 500  # the paths have grown
    blue = (last[..., 2] > 120) & (last[..., 0] < 90)
    height, width = blue.shape
    quarters = [blue[y : y + height // 2, x : x + width // 2].sum() for y in (0, height // 2) for x in (0, width // 2)]
    assert min(quarters) > 50 and quarters[0] > quarters[3]  # four paths; outwards is longer than inwards


def test_demos_are_listed_and_mistakes_are_sentences(fails, capsys, monkeypatch):
    assert main(["demo"]) == 0 and "ganfast demo xy" in capsys.readouterr().out
    assert "unknown demo 'xz'" in fails("demo", "xz")
    for rate in ("0", "1", "nan", "-0.1"):
        assert "--rate must be above 0 and below 1" in fails("demo", "xy", "--rate", rate)
    for steps in ("9", "2001"):
        assert "--steps must be from 10 to 2000" in fails("demo", "xy", "--steps", steps)
    Path("file").touch()
    assert "file cannot be made" in fails("demo", "xy", "--steps", "10", "--outdir", "file")
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'ganfast[demo]'" in fails("demo", "xy")
