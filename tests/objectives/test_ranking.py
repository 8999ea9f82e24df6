"""Bayesian personalized ranking."""

import math

import torch

from ganfast.objectives import bayesian_personalized_ranking


def test_the_mean_over_all_pairs_of_all_users():
    random = torch.Generator().manual_seed(0)
    s = torch.randn(7, 3, generator=random, dtype=torch.double, requires_grad=True)
    u = torch.randint(-1, 2, (7, 3), generator=random)
    pairs = [(i, j, k) for i in range(7) for j in range(7) for k in range(3) if u[i, k] == 1 and u[j, k] == 0]
    expected = sum(math.log1p(math.exp((s[j, k] - s[i, k]).item())) for i, j, k in pairs) / len(pairs)
    loss, ranked = bayesian_personalized_ranking(s, u == 1, u == 0)
    assert abs(loss.item() - expected) < 1e-12
    assert abs(ranked.item() - sum(bool(s[i, k] > s[j, k]) for i, j, k in pairs) / len(pairs)) < 1e-6
    loss.backward()
    assert torch.equal(s.grad[u == -1], torch.zeros_like(s.grad[u == -1])) and not ranked.requires_grad


def test_no_pairs_cost_nothing():
    s = torch.randn(4, 2, requires_grad=True)
    none = torch.zeros(4, 2, dtype=torch.bool)
    loss, ranked = bayesian_personalized_ranking(s, none, ~none)
    loss.backward()
    assert loss == 0 and ranked == 0 and not s.grad.any()
