"""What designs are worth."""

import torch

from ganfast.metrics.design import Means, averaged, held_out_auc


def test_auc_counts_the_pairs_of_each_user():
    random = torch.Generator().manual_seed(0)
    scores = torch.randint(6, (30, 3), generator=random).float()  # with ties
    chosen = torch.randint(-1, 2, (30, 3), generator=random).float()
    expected = []
    for k in range(3):
        pairs = [(i, j) for i in range(30) for j in range(30) if chosen[i, k] == -1 and chosen[j, k] == 0]
        won = [(scores[i, k] > scores[j, k]) + 0.5 * (scores[i, k] == scores[j, k]) for i, j in pairs]
        expected.append(float(sum(won)) / len(won))
    assert abs(held_out_auc(scores, chosen) - sum(expected) / 3) < 1e-6


def test_users_without_a_pair_do_not_count():
    scores, chosen = torch.tensor([[0.0, 1], [1, 0]]), torch.tensor([[0.0, 1], [-1, 0]])
    assert held_out_auc(scores, chosen) == 1 and held_out_auc(scores, chosen.abs()) is None


def test_means_are_over_users():
    users = [(torch.tensor([1.0, 3]), torch.tensor([0.0])), (torch.tensor([4.0]), torch.tensor([2.0]))]
    assert averaged(users) == [3, 1]
    assert Means(0.0, 2.0, -1.0, 3.0).increase == 0.5
