import math

import pytest
import torch

from ganfast.data import gaussians, open_dataset
from ganfast.metrics import mode_report


@pytest.mark.parametrize("name, modes", [("ring8", 8), ("grid25", 25)])
def test_the_data_itself_covers_every_mode(name, modes):
    report = mode_report(open_dataset(f"gaussians:{name}").samples[:2500], *gaussians.MODES[name])
    assert report.modes == report.total == modes
    assert report.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.01)  # P(radius ≤ 3σ) in two dimensions
    assert report.reverse_kl < 0.02


def test_a_collapsed_generator():
    centres, std = gaussians.MODES["ring8"]
    report = mode_report(centres[3].expand(100, 2), centres, std)
    assert (report.modes, report.high_quality) == (1, 1.0)
    assert report.reverse_kl == pytest.approx(math.log(8))


def test_samples_far_from_every_mode():
    report = mode_report(torch.full((10, 2), 50.0), *gaussians.MODES["ring8"])
    assert report.modes == 0 and report.high_quality == 0 and report.reverse_kl == math.inf
