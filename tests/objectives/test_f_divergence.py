"""The table of f-GAN against mathematics: suprema, derivatives, and divergences of Gaussians in closed form."""

import math

import pytest
import torch

from ganfast.objectives import DIVERGENCES, discriminator_f, generator_f_minimax, generator_f_non_saturating

ROWS = pytest.mark.parametrize("row", DIVERGENCES.values(), ids=DIVERGENCES)
U = torch.logspace(-3, 3, 61, dtype=torch.float64)
V = torch.linspace(-12, 12, 97, dtype=torch.float64)
# what g_f(v) solves for T* = f'(u), by the algebra of each row
SCORES = {
    "kullback-leibler": lambda u: 1 + u.log(),
    "reverse-kl": lambda u: u.log(),
    "pearson-chi2": lambda u: 2 * (u - 1),
    "squared-hellinger": lambda u: u.log() / 2,
    "jensen-shannon": lambda u: u.log(),
    "gan": lambda u: u.log(),
}
equal = torch.testing.assert_close


def derivative(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


@ROWS
def test_the_conjugate_is_the_supremum(row):
    """Over u > 0, on a grid that has u* within a ratio of 1.0001; for t that some u in it attains."""
    grid = torch.logspace(-8, 8, 400_001, dtype=torch.float64)
    values = row.f(grid)
    for t in row.optimal(torch.logspace(-2, 2, 9, dtype=torch.float64)):
        found = grid * t
        equal(row.conjugate(t), found.sub_(values).max(), rtol=1e-6, atol=1e-6)


def test_pearsons_conjugate_is_that_of_all_real_u():
    row, t = DIVERGENCES["pearson-chi2"], torch.tensor(-5.0, dtype=torch.float64)
    u = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    equal(row.conjugate(t), (u * t - row.f(u)).max(), rtol=1e-7, atol=0)


@ROWS
def test_the_optimal_critic(row):
    """T* = f'(u); Fenchel's equality; df*/dt at T* is u, so the bound's gradient p − q·u vanishes; f'(1)."""
    equal(row.optimal(U), derivative(row.f, U))
    equal(row.f(U) + row.conjugate(row.optimal(U)), U * row.optimal(U), rtol=1e-9, atol=1e-9)
    equal(derivative(row.conjugate, row.optimal(U)), U, rtol=1e-8, atol=0)
    assert row.threshold == pytest.approx(row.optimal(torch.ones((), dtype=torch.float64)).item(), abs=1e-15)
    assert row.conjugate(torch.tensor(row.threshold, dtype=torch.float64)).item() == pytest.approx(
        row.threshold - row.f(torch.ones((), dtype=torch.float64)).item()
    )


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_activation(name):
    """It maps ℝ into the domain, increases, reaches T*, and composes with the conjugate to fake_term."""
    row = DIVERGENCES[name]
    t = row.activation(V)
    assert (t < row.upper).all() and (derivative(row.activation, V) > 0).all()
    equal(row.conjugate(t), row.fake_term(V), rtol=1e-8, atol=1e-10)
    equal(row.activation(SCORES[name](U)), row.optimal(U), rtol=1e-9, atol=1e-11)


def test_the_domain_ends_where_the_conjugate_does():
    for name, row in DIVERGENCES.items():
        if row.upper < math.inf:
            ends = torch.tensor([row.upper - 1e-9, row.upper + 1e-9], dtype=torch.float64)
            inside, outside = row.conjugate(ends)
            assert inside > 19 and not outside > 0, name  # beyond, the supremum is +∞, and the formula nan or negative


@ROWS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_where_the_values_are(row, dtype):
    """|v| up to 80, beyond which e^|v| leaves fp32; and both terms of logarithms alone for any v."""
    v = torch.tensor([-80.0, -30.0, 0.0, 30.0, 80.0], dtype=dtype)
    for term in (row.activation, row.fake_term):
        assert term(v).isfinite().all() and derivative(term, v).isfinite().all()
    if row in (DIVERGENCES["jensen-shannon"], DIVERGENCES["gan"]):
        v = torch.tensor([-1e30, 1e30], dtype=dtype)
        assert row.activation(v).isfinite().all() and derivative(row.fake_term, v).tolist() == [0, 1]


# --- two Gaussians ----------------------------------------------------------------------------------------------------

X = torch.linspace(-30, 30, 60_001, dtype=torch.float64)


def normal(mean, sigma):
    return torch.exp(-0.5 * ((X - mean) / sigma).square()) / (sigma * math.sqrt(2 * math.pi))


def integral(values):
    return torch.trapezoid(values, X).item()


def bound(row, p, q, scores):
    """∫ p·g_f(V) − q·f*(g_f(V))."""
    return integral(p * row.activation(scores) - q * row.fake_term(scores))


def kl(m, s, n, r):
    """Of N(m, s²) from N(n, r²)."""
    return math.log(r / s) + (s * s + (m - n) ** 2) / (2 * r * r) - 0.5


CLOSED = {
    "kullback-leibler": lambda m, s, n, r: kl(m, s, n, r),
    "reverse-kl": lambda m, s, n, r: kl(n, r, m, s),
    "pearson-chi2": lambda m, s, n, r: (  # finite for s² < 2r²
        r * r / (s * math.sqrt(2 * r * r - s * s)) * math.exp((m - n) ** 2 / (2 * r * r - s * s)) - 1
    ),
    "squared-hellinger": lambda m, s, n, r: (
        2 - 2 * math.sqrt(2 * s * r / (s * s + r * r)) * math.exp(-((m - n) ** 2) / (4 * (s * s + r * r)))
    ),
}


@pytest.mark.parametrize("gaussians", [(0.7, 1.0, -0.3, 1.0), (0.5, 0.9, 0.0, 1.2)])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_optimal_critics_bound_is_the_divergence(name, gaussians):
    row, (m, s, n, r) = DIVERGENCES[name], gaussians
    p, q = normal(m, s), normal(n, r)
    log_u = 0.5 * ((X - n) / r).square() - 0.5 * ((X - m) / s).square() + math.log(r / s)
    ratio = log_u.clamp(-300, 300).exp()
    scores = SCORES[name](ratio)
    if name in CLOSED:
        divergence = CLOSED[name](m, s, n, r)
    else:
        middle = (p + q) / 2
        twice_js = integral(torch.xlogy(p, p / middle) + torch.xlogy(q, q / middle))
        divergence = twice_js - (math.log(4) if name == "gan" else 0)
    assert bound(row, p, q, scores) == pytest.approx(divergence, rel=1e-7)
    for other in (scores + 0.1, scores - 0.1, scores + 0.1 * X.sin()):  # any other critic is below
        assert bound(row, p, q, other) < divergence - 1e-4
    nodes = scores.clone().requires_grad_()
    inner = (X.abs() < 8) & (scores.abs() < 300)
    terms = p * row.activation(nodes) - q * row.fake_term(nodes)
    assert torch.autograd.grad(terms[inner].sum(), nodes)[0].abs().max() < 1e-12


def test_reverse_kl_is_kl_the_other_way_and_the_symmetric_ones_are():
    p, q = normal(0.5, 0.9), normal(0.0, 1.2)
    of = {name: (integral(q * row.f(p / q)), integral(p * row.f(q / p))) for name, row in DIVERGENCES.items()}
    assert of["kullback-leibler"] == pytest.approx(of["reverse-kl"][::-1])
    for name in ("squared-hellinger", "jensen-shannon", "gan"):
        assert of[name][0] == pytest.approx(of[name][1])
    assert of["kullback-leibler"][0] != pytest.approx(of["kullback-leibler"][1], rel=1e-2)


# --- losses -----------------------------------------------------------------------------------------------------------


@ROWS
def test_losses_by_their_formulas_and_their_derivatives(row):
    real, fake = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    t_real, t_fake = row.activation(real), row.activation(fake)
    equal(discriminator_f(row, real, fake), row.conjugate(t_fake).mean() - t_real.mean())
    equal(generator_f_minimax(row, fake), -row.conjugate(t_fake).mean())
    equal(generator_f_non_saturating(row, fake), -t_fake.mean())
    for loss, inputs in (
        (discriminator_f, (real, fake)),
        (generator_f_minimax, (fake,)),
        (generator_f_non_saturating, (fake,)),
    ):
        assert torch.autograd.gradcheck(lambda *v: loss(row, *v), inputs)  # noqa: B023
        assert torch.autograd.gradgradcheck(lambda *v: loss(row, *v), inputs)  # noqa: B023


def test_the_divergence_gan_is_the_original_game():
    from ganfast.objectives import discriminator_bce, generator_minimax, generator_non_saturating

    row, (real, fake) = DIVERGENCES["gan"], torch.randn(2, 9, dtype=torch.float64)
    equal(discriminator_f(row, real, fake), discriminator_bce(real, fake))
    equal(generator_f_minimax(row, fake), generator_minimax(fake))
    equal(generator_f_non_saturating(row, fake), generator_non_saturating(fake))
    js = discriminator_f(DIVERGENCES["jensen-shannon"], real, fake)
    equal(js, discriminator_bce(real, fake) - math.log(4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_scores_are_summed_in_fp32(dtype):
    real, fake = torch.full((2, 3), 300.0, dtype=dtype)
    loss = discriminator_f(DIVERGENCES["pearson-chi2"], real, fake)  # 300²/4 is above fp16's range
    assert loss.dtype == torch.float32 and loss.item() == 300**2 / 4


def test_the_bounded_divergences_saturate_and_the_alternative_does_not():
    sure = torch.tensor([-20.0], dtype=torch.float64)  # the critic is sure that it is fake
    for name in ("squared-hellinger", "jensen-shannon", "gan"):
        row = DIVERGENCES[name]
        assert derivative(lambda v: generator_f_minimax(row, v), sure).abs() < 1e-8  # noqa: B023
        assert derivative(lambda v: generator_f_non_saturating(row, v), sure).abs() > 0.99  # noqa: B023
