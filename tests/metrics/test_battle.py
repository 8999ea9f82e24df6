"""The generative adversarial metric from its four errors."""

import pytest

from ganfast.errors import InputError
from ganfast.metrics.battle import battle_report


def test_the_winner_deceives_the_other_more():
    report = battle_report("other", 0.2, 0.25, 0.1, 0.4)
    assert (report.r_test, report.r_sample, report.winner) == (0.8, 0.25, "this")
    assert battle_report("other", 0.25, 0.2, 0.4, 0.1).winner == "other"
    assert "this run wins" in str(report) and "r_sample 0.250" in str(report)


def test_discriminators_that_generalise_otherwise_end_in_a_tie():
    report = battle_report("other", 0.3, 0.1, 0.1, 0.4)
    assert report.winner == "tie" and "too far from 1" in str(report)
    even = battle_report("other", 0.1, 0.1, 0.4, 0.4)
    assert even.winner == "tie" and str(even).endswith(": tie")


def test_errors_of_zero_leave_a_ratio_undefined():
    report = battle_report("other", 0.1, 0.1, 0.2, 0.0)
    assert report.r_sample is None and report.winner == "other" and "r_sample undefined" in str(report)
    assert battle_report("other", 0.1, 0.0, 0.2, 0.1).winner == "tie"


@pytest.mark.parametrize("error", [-0.1, 1.1, float("nan")])
def test_an_error_is_a_share(error):
    with pytest.raises(InputError, match=r"shares in \[0, 1\]"):
        battle_report("other", 0.1, error, 0.1, 0.1)
