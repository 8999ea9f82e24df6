import pytest

from ganfast.report.charts import BUCKETS, Line, bars, buckets, chart, limits, ticks
from ganfast.report.images import spread
from ganfast.report.tables import number


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (0.5, "0.5"), (-0.1234, "-0.123"), (12.0, "12"), (123.4, "123"), (1234.5, "1,234"), (0.00012, "1.2e-04"),
     (999_960, "1 M"), (12_800_000, "12.8 M"), (3.2e9, "3.2 G"), (-20.46, "-20.5")],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 1, [0, 0.5, 1]),
        (0, 600, [0, 200, 400, 600]),
        (-25, 7, [-20, -10, 0]),
        (109, 183, [120, 140, 160, 180]),
        (0.91, 0.99, [0.92, 0.94, 0.96, 0.98]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == expected


def test_an_outlier_does_not_dwarf_the_rest():
    values = [1 + (k % 10) / 10 for k in range(200)]
    assert limits([Line("a", list(range(200)), [*values[1:], 1000.0])])[1] < 3
    low, high = limits([Line("a", list(range(200)), values)])
    assert low <= 1 and 1.9 <= high < 2.1
    drawn = chart("Loss", [Line("a", list(range(200)), [*values[1:], 1000.0])])
    assert "1 of 200 values lie outside the frame: 1 to 1,000." in drawn


@pytest.mark.parametrize(
    "values", [[3.0], [0.0, 0.0], [-2.0, -2.0], [1e-12, 2e-12], [1e20, -1e20], [5e-324, 0.0], [1.0, 1 + 2e-16]]
)
def test_any_values_can_be_drawn(values):
    low, high = limits([Line("a", list(range(len(values))), values)])
    assert low < high and low <= min(values) and high >= max(values)
    drawn = chart("Loss", [Line("a", [7 * k for k in range(len(values))], values)])
    assert "nan" not in drawn and "inf" not in drawn and 'role="img"' in drawn and "aria-label" in drawn


def test_many_points_become_few_with_their_extremes():
    line = Line("a", list(range(10_000)), [float(k % 100) for k in range(10_000)])
    points = buckets(line)
    assert len(points) <= BUCKETS and points[-1][0] == 9999
    assert min(p[2] for p in points) == 0 and max(p[3] for p in points) == 99
    assert sum(p[1] for p in points) / len(points) == pytest.approx(49.5, abs=1)
    assert 'class="band"' in chart("a", [line]) and len(chart("a", [line])) < 30_000


def test_bars_say_their_shares():
    drawn = bars("Shares", [("real", [0.5, 0.5]), ("generated", [0.25, 0.75])])
    assert "real: 50.0 %, 50.0 %; generated: 25.0 %, 75.0 %" in drawn and drawn.count("<rect") == 4
    assert "<rect" in bars("Shares", [("real", [0.0])])


def test_spread_keeps_the_ends():
    assert spread([1, 2, 3], 16) == [1, 2, 3]
    few = spread(list(range(1000)), 16)
    assert len(few) == 16 and few[0] == 0 and few[-1] == 999
