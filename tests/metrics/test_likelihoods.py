"""Bounds and Parzen windows against Gaussians, where both are known in closed form."""

import math

import pytest
import torch

from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics import bound_report, parzen_report
from ganfast.metrics.parzen import SIGMAS, estimate, log_density


def noise(count, seed, low=0) -> Dataset:
    random = torch.Generator().manual_seed(seed)
    return Dataset("noise", images=torch.randint(low, 256, (count, 4, 4, 1), dtype=torch.uint8, generator=random))


def test_one_window_is_a_gaussian_and_several_are_their_mixture():
    x, s = torch.randn(7, 3).double(), torch.randn(5, 3).double()
    normal = torch.distributions.Normal(s, 0.3)
    apart = normal.log_prob(x[:, None]).sum(2)  # [7, 5]
    torch.testing.assert_close(log_density(x, s, [0.3])[0], apart.logsumexp(1) - math.log(5))
    torch.testing.assert_close(log_density(x, s[:1], [0.3, 2.0])[0], apart[:, 0])
    assert log_density(x + 1e4, s, [0.03]).isfinite().all()  # far from every window


def test_windows_over_a_gaussian_converge_to_its_log_density():
    """Of the N(0, 1) line, with N samples: E log p̂ is −½ log 2πe less what σ and N cost."""
    random = torch.Generator().manual_seed(0)
    samples, validation, test = (torch.randn(n, 1, generator=random) for n in (3_000, 200, 1_000))
    found, sigma = estimate(samples, validation, test)
    exact = torch.distributions.Normal(0.0, 1.0).log_prob(test.double())[:, 0]
    assert abs(found.mean() - exact.mean()) < 0.02 and 0.05 < sigma < 0.5
    wide = log_density(test, samples, [1.0])[0].mean()  # N(0, 2) as seen from N(0, 1): −½ log 4π − ¼
    assert abs(wide - (-math.log(4 * math.pi) / 2 - 0.25)) < 0.05


def test_the_report_has_its_floor_and_does_not_score_rows_that_are_windows():
    data = noise(400, 0)
    uniform = torch.rand(300, 1, 4, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1
    report = parzen_report(data, data, uniform)
    assert (report.windows, report.test, report.validation) == (200, 180, 20)  # half of the data stands in
    assert report.sigma > min(SIGMAS) and report.floor_sigma > min(SIGMAS)
    assert abs(report.log_likelihood - report.floor) < 6 * report.floor_error  # both are noise
    assert "in the place of samples" in str(report) and parzen_report(data, data, uniform) == report
    with pytest.raises(InputError, match="has 12 images, needs 20 at least"):
        parzen_report(noise(12, 0), noise(12, 0), uniform)


def test_samples_that_are_all_the_mean_beat_real_images():
    """As Theis et al. 2016 warn: a window on the mean of noise is nearer to other noise than windows on noise are."""
    report = parzen_report(noise(400, 0), noise(300, 1), torch.zeros(300, 1, 4, 4))
    assert (report.windows, report.test, report.validation) == (300, 360, 40)
    assert report.log_likelihood > report.floor + 1
    x = (noise(400, 0).samples / 255).double()
    sigma = (x - 0.5).std()  # of one Gaussian of all pixels
    expected = torch.distributions.Normal(0.5, sigma).log_prob(x).sum((1, 2, 3)).mean()
    assert abs(report.log_likelihood - expected) < 0.3


def test_the_mean_bound_is_repeatable_and_leaves_the_random_state():
    data = noise(1203, 0)
    state = torch.get_rng_state()
    bound = lambda x: x.flatten(1).sum(1) + torch.randn(len(x))  # noqa: E731
    one, other = bound_report(bound, data), bound_report(bound, data)
    assert one == other and torch.equal(state, torch.get_rng_state()) and one.images == 1203
    exact = (data.samples.double() / 127.5 - 1).sum((1, 2, 3))
    assert abs(one.elbo - exact.mean()) < 5 / 1203**0.5
    assert one.elbo_error == pytest.approx(float(exact.var() + 1) ** 0.5 / 1203**0.5, rel=0.1)
    assert f"{one.elbo:.2f} ±" in str(one)
