import pytest
import torch

from ganfast.metrics.representation import Accuracies, accuracies, linear, nearest


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_nearest_row_is_that_of_all_distances():
    codes, queries = torch.randn(700, 9) + 20, torch.randn(600, 9) + 20  # far from zero, in three parts
    wanted = (queries[:, None].double() - codes.double()).square().sum(2).argmin(1)
    assert torch.equal(nearest(codes, queries), wanted)
    assert torch.equal(nearest(codes, codes), torch.arange(700))


def test_a_linear_classifier_separates_what_a_line_separates_and_no_more():
    x = torch.randn(600, 3) * torch.tensor([1.0, 1e3, 1e-3]) + torch.tensor([0.0, 5e3, 1.0])  # of any scale
    labels = (x[:, 2] > 1).long() + 2 * (x[:, 1] > 5e3).long()
    assert (linear(x[:400], labels[:400], x[400:]) == labels[400:]).float().mean() > 0.95
    rings = (x[:, 0].abs() > 0.7).long()
    assert (linear(x[:400], rings[:400], x[400:]) == rings[400:]).float().mean() < 0.7


def test_a_number_that_never_changes_counts_for_nothing():
    x, labels = torch.randn(300, 2), torch.arange(300) % 3
    x[:, 0] += 10 * labels
    still = torch.cat([x, torch.full((300, 1), 7.0)], 1)
    asked = torch.cat([x, torch.randn(300, 1) * 1e4], 1)
    assert torch.equal(linear(still, labels, asked), linear(x, labels, x))


def test_accuracies_are_shares_of_the_judged_rows():
    codes = torch.eye(4).repeat(20, 1) + 0.01 * torch.randn(80, 4)
    labels = torch.arange(4).repeat(20)
    assert accuracies(codes, labels, codes, labels) == Accuracies(1.0, 1.0)
    assert accuracies(codes, labels, codes, (labels + 1) % 4) == Accuracies(0.0, 0.0)
    half = torch.where(torch.arange(80) < 40, labels, (labels + 1) % 4)
    assert accuracies(codes, labels, codes, half) == Accuracies(0.5, 0.5)


def test_what_a_linear_classifier_cannot_tell_neighbours_can():
    x = torch.rand(2000, 2) * 2 - 1
    labels = (x[:, 0] * x[:, 1] > 0).long()  # a chessboard
    found = accuracies(x[:1500], labels[:1500], x[1500:], labels[1500:])
    assert found.neighbour > 0.93 and found.linear < 0.65
