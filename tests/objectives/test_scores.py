"""Hinge, least squares, relativistic and energy losses against their formulas, optima and identities."""

import pytest
import torch
from torch.nn import functional as F

from ganfast import objectives

equal = torch.testing.assert_close
P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)  # two distributions over four points
Q = torch.tensor([0.1, 0.3, 0.35, 0.25], dtype=torch.float64)


@pytest.fixture
def scores():
    return [torch.randn(7, dtype=torch.float64, requires_grad=True) for _ in range(2)]


def test_by_their_formulas(scores):
    real, fake = scores
    equal(objectives.discriminator_hinge(real, fake), (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
    equal(objectives.generator_hinge(fake), -fake.mean())
    equal(objectives.discriminator_least_squares(real, fake), ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2)
    equal(objectives.generator_least_squares(fake, 0.5), ((fake - 0.5) ** 2).mean() / 2)
    average = F.logsigmoid(real - fake.mean()).mean() + F.logsigmoid(real.mean() - fake).mean()
    equal(objectives.relativistic_average(real, fake), -average)
    energy = fake.abs()
    equal(
        objectives.discriminator_energy(real.abs(), energy, 1.5), real.abs().mean() + (1.5 - energy).clamp(min=0).mean()
    )
    equal(objectives.generator_energy(energy), energy.mean())


@pytest.mark.parametrize(
    "name, loss",
    [
        ("least squares", lambda r, f: objectives.discriminator_least_squares(r, f, -1.0, 1.0)),
        ("hinge", objectives.discriminator_hinge),
        ("pairing", objectives.relativistic_pairing),
        ("average", objectives.relativistic_average),
        ("energy", lambda r, f: objectives.discriminator_energy(r.square(), f.square(), 2.0)),
    ],
)
def test_differentiable_twice(name, loss, scores):
    assert torch.autograd.gradcheck(loss, scores)
    assert torch.autograd.gradgradcheck(loss, scores)


def expected(values, weights):
    """A sample in which each value is as frequent as its weight says, in twentieths."""
    return values.repeat_interleave((weights * 20).round().long())


def test_least_squares_optimum_is_the_weighted_target():
    a, b = -0.5, 2.0
    best = ((b * P + a * Q) / (P + Q)).requires_grad_()
    loss = objectives.discriminator_least_squares(expected(best, P), expected(best, Q), a, b)
    equal(torch.autograd.grad(loss, best)[0], torch.zeros(4, dtype=torch.float64))


def test_least_squares_is_pearsons_chi2_with_b_minus_c_1_and_b_minus_a_2():
    """2·C(G) = χ²(p + q ‖ 2q), both sides' squares at the best D counted (Mao et al. 2017, equation 6)."""
    best = (P - Q) / (P + Q)
    both = objectives.generator_least_squares(expected(best, P), 0.0) + objectives.generator_least_squares(
        expected(best, Q), 0.0
    )
    equal(2 * both, ((2 * Q - (P + Q)).square() / (P + Q)).sum())


def test_hinge_optimum_is_the_sign_and_its_value_the_overlap():
    """Among all D on a grid; the minimum is 2·Σ min(p, q)."""
    grid = torch.linspace(-2, 2, 81, dtype=torch.float64)
    for p, q in zip(P.tolist(), Q.tolist()):
        values = torch.stack([p * (1 - d).relu() + q * (1 + d).relu() for d in grid])
        if p != q:
            equal(grid[values.argmin()].item(), float(p > q) - float(p < q))
    best = (P - Q).sign()
    equal(objectives.discriminator_hinge(expected(best, P), expected(best, Q)), 2 * torch.minimum(P, Q).sum())


@pytest.mark.parametrize("loss", [objectives.relativistic_pairing, objectives.relativistic_average])
def test_relativistic_losses_see_differences_alone(loss, scores):
    real, fake = (each.detach() for each in scores)
    equal(loss(real + 5, fake + 5), loss(real, fake))
    equal(loss(fake, real), loss(-real, -fake))  # the generator's is the discriminator's of minus the scores
    equal(loss(real, real.flip(0)) > 0, torch.tensor(True))
    assert loss(real + 1000, fake) < 1e-12 < 100 < loss(fake, real + 1000)
    sides = 2 if loss is objectives.relativistic_average else 1
    equal(loss(torch.full_like(real, 3), torch.full_like(fake, 3)), sides * torch.tensor(2.0).double().log())


def test_relativistic_average_takes_batches_of_two_sizes(scores):
    real, fake = scores[0], scores[1][:3]
    average = F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()
    equal(objectives.relativistic_average(real, fake), average)


def test_energies_above_the_margin_are_left_alone():
    fake = torch.tensor([0.5, 3.0], requires_grad=True)
    objectives.discriminator_energy(torch.ones(2), fake, 2.0).backward()
    assert fake.grad.tolist() == [-0.5, 0]


def test_pulling_away_is_the_mean_squared_cosine_of_pairs():
    s = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    pairs = [F.cosine_similarity(s[i], s[j], dim=0) ** 2 for i in range(5) for j in range(5) if i != j]
    equal(objectives.pulling_away(s), sum(pairs) / 20)
    equal(objectives.pulling_away(7 * s.view(5, 3, 1)), objectives.pulling_away(s))
    assert torch.autograd.gradcheck(objectives.pulling_away, s) and torch.autograd.gradgradcheck(
        objectives.pulling_away, s
    )
    assert objectives.pulling_away(torch.eye(4)).item() == 0
    assert objectives.pulling_away(torch.ones(4, 9)).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="representations: got 1 of them, needs 2"):
        objectives.pulling_away(torch.ones(1, 9))


def test_half_scores_are_squared_in_fp32():
    loss = objectives.discriminator_least_squares(*torch.full((2, 3), 300.0, dtype=torch.float16), 0.0, 0.0)
    assert loss.dtype == torch.float32 and loss.item() == 90_000
