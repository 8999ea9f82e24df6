"""The reference against a loop over pairs."""

import math

import torch
from torch.autograd import gradcheck, gradgradcheck

from ganfast import functional, reference


def test_equals_the_double_sum():
    m = torch.randn(5, 3, 4, dtype=torch.float64)
    out = reference.pairwise_l1(m)
    for i in range(5):
        for b in range(3):
            terms = [math.exp(-sum(abs(float(m[i, b, d] - m[j, b, d])) for d in range(4))) for j in range(5)]
            assert abs(float(out[i, b]) - sum(terms)) < 1e-12


def test_a_single_sample_is_similar_to_itself_alone():
    assert torch.equal(functional.pairwise_l1(torch.randn(1, 4, 3)), torch.ones(1, 4))


def test_derivatives():
    m = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(functional.pairwise_l1, (m,))
    assert gradgradcheck(functional.pairwise_l1, (m,))
