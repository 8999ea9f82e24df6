import math

import pytest
import torch

from ganfast.metrics.codes import code_effects, codes_report, effect, slants, widths

SIDE = 28


def bar(width: float, degrees: float, channels: int = 1, right: float = 0.0) -> torch.Tensor:
    """[channels, SIDE, SIDE]: a bar 20 pixels high whose top leans to the right, edges smoothed."""
    y, x = torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2] * 2, indexing="ij")
    away = (x - right + math.tan(math.radians(degrees)) * y).abs()  # y is downwards
    lit = (width / 2 + 0.5 - away).clamp(0, 1) * (y.abs() < 10)
    return (2 * lit - 1).float().expand(channels, -1, -1)


def test_slant_is_the_angle_by_which_a_bar_leans():
    for degrees in (-30, -5, 0, 12, 30):
        for width in (2, 6):
            assert slants(bar(width, degrees)[None]).item() == pytest.approx(degrees, abs=0.1)


def test_width_is_that_of_the_bar_whatever_its_slant_and_place():
    for width in (2, 6, 10):
        upright = widths(bar(width, 0, channels=3, right=3)[None]).item()
        assert upright == pytest.approx(width, abs=1e-3)
    for width in (6, 10):  # smoothed edges of a slanted bar widen it a little
        assert widths(bar(width, 20)[None]).item() == pytest.approx(width, abs=0.2)


def test_black_images_have_no_slant_and_no_width():
    black = torch.full((2, 1, 8, 8), -1.0)
    assert slants(black).tolist() == [0, 0] and widths(black).tolist() == [1, 1]


def test_effects_of_a_code_that_shears_and_one_that_widens():
    values = torch.linspace(-2, 2, 5)
    shears = torch.stack([torch.stack([bar(width, 8 * v) for v in values]) for width in (3, 5, 7)])
    found = code_effects(values, shears)
    assert found.slant.slope == pytest.approx(8, abs=0.1) and found.slant.range == pytest.approx(32, abs=0.2)
    assert found.slant.correlation > 0.999 and abs(found.width.range) < 0.05
    widens = torch.stack([torch.stack([bar(6 - 1.5 * v, lean) for v in values]) for lean in (-10, 25)])
    found = code_effects(values, widens)
    assert found.width.slope == pytest.approx(-1.5, abs=0.1) and found.width.range == pytest.approx(-6, abs=0.3)
    assert found.width.correlation < -0.99 and abs(found.slant.slope) < 0.1


def test_correlation_is_within_the_series_that_differ_much_more():
    values = torch.tensor([-1.0, 0.0, 1.0])
    line = effect(values, torch.tensor([[100.0, 101.0, 102.0], [0.0, 1.0, 2.0]]))
    assert (line.slope, line.range, line.correlation) == pytest.approx((1, 2, 1))
    opposed = effect(values, torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    assert (opposed.slope, opposed.range, opposed.correlation) == (0, 0, 0)
    assert effect(values, torch.full((2, 3), 0.1)).correlation == 0
    bent = effect(values, torch.tensor([[0.0, 3.0, 1.0]]))  # about its mean −4/3, 5/3, −1/3
    assert bent.slope == pytest.approx(0.5) and bent.correlation == pytest.approx(1 / math.sqrt(2 * 42 / 9))


def samples_of(table: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(categories, classes) of samples as ``table[category][class]`` counts them."""
    rows = [(k, c) for k, row in enumerate(table) for c, count in enumerate(row) for _ in range(count)]
    return tuple(torch.tensor(rows).T)


@pytest.mark.parametrize(
    "table, purity, matched, owned",
    [
        ([[0, 10], [10, 0]], 1, 1, 1),  # names do not matter
        ([[5, 5], [5, 5]], 0.5, 0.5, 0),
        ([[9, 1], [9, 1]], 0.9, 0.5, 0),  # pure, but neither has most of class 0, and class 1 has no category
        ([[10, 0], [10, 0], [0, 10]], 1, 20 / 30, 0.5),
        ([[8, 2, 0], [1, 9, 0], [4, 0, 6]], 23 / 30, 23 / 30, 1),
    ],
)
def test_purity_matching_and_ownership(table, purity, matched, owned):
    report = codes_report(0.98, *samples_of(table), (len(table), len(table[0])))
    assert (report.purity, report.matched, report.owned) == pytest.approx((purity, matched, owned))
    assert report.confusion == tuple(map(tuple, table)) and report.accuracy == 0.98
    assert report.codes == () and report.slant is None and report.width is None
    text = str(report)
    assert f"one category owns                 {owned:.1%}" in text and "correlation" not in text


def test_the_report_has_a_line_for_each_code_and_measure():
    values = torch.tensor([-2.0, 2.0])
    none = code_effects(values, torch.stack([bar(4, 0), bar(4, 1)])[None])
    code = code_effects(values, torch.stack([bar(4, -10), bar(6, 10)])[None])
    report = codes_report(1, *samples_of([[1, 0], [0, 1]]), (2, 2), (none, code))
    assert report.codes == (none, code) and report.slant == code.slant and report.width == code.width
    lines = str(report).splitlines()
    assert [line.split()[:2] for line in lines[-4:]] == [
        ["0", "slant,"], ["0", "width,"], ["1", "slant,"], ["1", "width,"],
    ]  # fmt: skip
    slope, change, correlation = map(float, lines[-2].split()[-3:])
    assert slope == pytest.approx(5, abs=0.1) and change == pytest.approx(20, abs=0.2) and correlation == 1
