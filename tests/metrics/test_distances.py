"""Closed forms, torch-fidelity's figures, and what is refused."""

import numpy as np
import pytest
import torch

from ganfast.errors import InputError
from ganfast.metrics import distances


def features(count: int, seed: int, shift: float, width: int = 64) -> torch.Tensor:
    """fp64 [count, width], non-negative and correlated, from the stream that numpy promises never to change."""
    mix = np.random.RandomState(7).standard_normal((width, width)) / width**0.5
    values = np.random.RandomState(seed).standard_normal((count, width)) @ mix + shift
    return torch.from_numpy(np.maximum(values, 0))


@pytest.fixture(scope="module")
def real():
    return features(1500, 0, 0.3)


@pytest.fixture(scope="module")
def fake():
    return features(1200, 1, 0.5)


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_frechet_of_gaussians_that_commute():
    a, b = torch.rand(5).double() + 0.5, torch.rand(5).double() + 0.5
    turn = torch.linalg.qr(torch.randn(5, 5).double()).Q
    means = torch.randn(2, 5).double()
    found = distances.frechet_of(means[0], a.sqrt()[:, None] * turn, means[1], b.sqrt()[:, None] * turn)
    assert found == pytest.approx(float((means[0] - means[1]).square().sum() + (a.sqrt() - b.sqrt()).square().sum()))


def test_frechet_of_any_covariances_is_that_of_the_matrix_square_root():
    from scipy.linalg import sqrtm

    a, b = (torch.randn(9, 4).double() for _ in range(2))
    s, t = (x.T @ x for x in (a, b))
    expected = float(s.trace() + t.trace() - 2 * np.trace(sqrtm((s @ t).numpy()).real))
    zero = torch.zeros(4).double()
    assert distances.frechet_of(zero, a, zero, b) == pytest.approx(expected, rel=1e-9)
    assert distances.frechet_of(zero, distances.root(s), zero, distances.root(t)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [30, 64, 500])
def test_frechet_of_shifted_features_is_the_shift_at_any_number_of_rows(count):
    """Of fewer rows than features the covariances are singular."""
    x = features(count, 3, 0.3)
    assert distances.frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert distances.frechet(x.float(), x.float() + 0.5) == pytest.approx(64 * 0.25, rel=1e-5)


def test_kernel_distance_is_its_own_definition():
    x, y = torch.rand(2, 7, 3).double()
    k = lambda a, b: float((a @ b / 3 + 1) ** 3)  # noqa: E731
    pairs = [(i, j) for i in range(7) for j in range(7)]
    own = sum(k(s[i], s[j]) for s in (x, y) for i, j in pairs if i != j) / 42
    expected = own - 2 * sum(k(x[i], y[j]) for i, j in pairs) / 49
    mean, deviation = distances.kernel_distance(x, y)
    assert mean == pytest.approx(expected, abs=1e-12) and deviation == 0


def test_kernel_distance_is_unbiased_and_repeatable():
    halves = features(4000, 5, 0.3).split(100)
    found = torch.tensor([distances.kernel_distance(a, b)[0] for a, b in zip(halves[::2], halves[1::2])])
    assert found.mean().abs() < 4 * found.std() / len(found) ** 0.5 and (found < 0).any()
    assert distances.kernel_distance(*halves[:2], 5, 50) == distances.kernel_distance(*halves[:2], 5, 50)


def test_kernel_distance_of_many_rows_is_that_of_few(real, fake):
    """Two subsets of 100 rows are computed one by one, of the rows that they hold alone in one."""
    one_by_one = distances.kernel_distance(real, fake, 2, 100)
    random = np.random.RandomState(distances.SEED)
    y, x = zip(*[[random.choice(n, 100, replace=False) for n in (1200, 1500)] for _ in range(2)])
    by_hand = [distances.kernel_distance(real[i], fake[j])[0] for i, j in zip(x, y)]
    assert one_by_one == pytest.approx((np.mean(by_hand), np.std(by_hand)), rel=1e-9)


def test_inception_scores_of_the_extremes():
    sure = torch.eye(4).repeat(50, 1)
    assert distances.inception_score(sure, splits=1)[0] == pytest.approx(4)
    assert distances.inception_score(torch.full((200, 4), 0.25)) == pytest.approx((1, 0))


def test_precision_falls_with_fakes_off_the_data_and_recall_with_modes_that_are_missing():
    modes = torch.randn(600, 2).double() + 20 * (torch.arange(600) % 2)[:, None]
    one, off = modes[::2] + 0.01, modes + 1000
    assert distances.precision_recall(modes, modes + 1e-6) == (1, 1)
    precision, recall = distances.precision_recall(modes, one)
    assert precision > 0.95 and recall == pytest.approx(0.5, abs=0.02)
    assert distances.precision_recall(modes, off) == (0, 0)
    fresh = torch.randn(3000, 2).double()  # of the same mode: copies would also lie in their own balls
    density, coverage = distances.density_coverage(modes, fresh)
    assert density == pytest.approx(1, abs=0.1) and coverage == pytest.approx(0.5, abs=0.01)
    assert distances.density_coverage(modes, off) == (0, 0)


def test_density_of_equal_distributions_is_one():
    density, coverage = distances.density_coverage(torch.randn(1000, 3), torch.randn(1000, 3))
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(1 - 0.5**5, abs=0.03)  # Naeem et al. 2020, equation 9


def test_copies_are_told_from_samples():
    train, held_out, fresh = torch.randn(3, 400, 8).double()
    share, score = distances.copying(train, held_out, fresh)
    assert abs(score) < 4 and 0.4 < share < 0.6
    share, score = distances.copying(train, held_out, train + 0.01 * fresh)
    assert share > 0.99 and score < -20
    assert distances.copying(train, held_out, fresh + 100)[1] > 20
    assert distances.copying(train, train, train) == (0.5, 0)  # ties


def test_copies_of_what_is_held_out_too_hide_half_of_it():
    train, held_out, noise = torch.randn(3, 400, 8).double()
    share, score = distances.copying(train, held_out, torch.cat([train, held_out])[::2] + 0.01 * noise)
    assert share == pytest.approx(0.75, abs=0.05) and score < -5


def test_blocks_change_nothing(real, fake, monkeypatch):
    def all_of_them():
        real6, fake6 = real[:, :6], fake[:, :6]
        return (
            distances.precision_recall(real6, fake6), distances.density_coverage(real6, fake6),
            distances.copying(real6[:700], real6[700:], fake6), distances.frechet(real, fake),
        )  # fmt: skip

    whole = all_of_them()
    monkeypatch.setattr(distances, "BLOCK", 50_000)
    monkeypatch.setattr(distances, "ROWS", 77)
    for a, b in zip(whole, all_of_them()):
        assert a == pytest.approx(b, rel=1e-9)


# -- torch-fidelity ----------------------------------------------------------------------------------------------------

# torch-fidelity 0.4.0 on the features of the fixtures, once, with its functions …_features_to_metric and
# fid_statistics_to_metric: features_1 is fake, features_2 real; kid_subsets 20, kid_subset_size 500; isc of the logits
# 3·fake[:, :10]; prc of the first six features of each
RECORDED = {
    "fid": 1.9821557161100785, "fid of 40 and 30 rows": 22.589595956818528,
    "kid": (0.16141875566722647, 0.016190723356183778), "isc": (3.607664465141127, 0.1456883116648355),
    "prc": (0.9558333158493042, 0.9693333506584167),
}  # fmt: skip


def ours(real, fake) -> dict:
    return {
        "fid": distances.frechet(real, fake),
        "fid of 40 and 30 rows": distances.frechet(features(40, 0, 0.3), features(30, 1, 0.5)),
        "kid": distances.kernel_distance(real, fake, 20, 500),
        "isc": distances.inception_score((3 * fake[:, :10]).softmax(1)),
        "prc": distances.precision_recall(real[:, :6], fake[:, :6]),
    }


def test_figures_are_those_that_torch_fidelity_gave(real, fake):
    for name, value in ours(real, fake).items():
        assert value == pytest.approx(RECORDED[name], rel=1e-6), name


def test_figures_are_those_that_torch_fidelity_gives(real, fake):
    fid = pytest.importorskip("torch_fidelity.metric_fid", exc_type=ImportError)  # it wants torchvision
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    statistics = [fid.fid_features_to_statistics(x) for x in (fake, real)]
    few = [fid.fid_features_to_statistics(x) for x in (features(30, 1, 0.5), features(40, 0, 0.3))]
    theirs = {
        "fid": fid.fid_statistics_to_metric(*statistics, False),
        "fid of 40 and 30 rows": fid.fid_statistics_to_metric(*few, False),
        "kid": kid_features_to_metric(fake, real, kid_subsets=20, kid_subset_size=500, verbose=False),
        "isc": isc_features_to_metric(3 * fake[:, :10]),
        "prc": prc_features_to_metric(fake[:, :6].contiguous(), real[:, :6].contiguous(), verbose=False),
    }
    for name, value in ours(real, fake).items():
        values = list(theirs[name].values())
        assert value == pytest.approx(values[0] if isinstance(value, float) else tuple(values[:2]), rel=1e-3), name


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function, least", [
    (distances.frechet, 2), (distances.kernel_distance, 2), (distances.precision_recall, 4),
    (distances.density_coverage, 6)])  # fmt: skip
def test_an_error_names_the_argument(function, least):
    x = torch.rand(10, 3)
    with pytest.raises(InputError, match=rf"real: got {least - 1} rows, needs at least {least}"):
        function(x[: least - 1], x)
    with pytest.raises(InputError, match=r"fake: got float32 \[10\], needs floats \[N, F\]"):
        function(x, x[:, 0])
    with pytest.raises(InputError, match="fake: got 2 features beside 3"):
        function(x, x[:, :2])
    with pytest.raises(InputError, match="fake: NaN or infinity among the features"):
        function(x, x * torch.nan)
    with pytest.raises(InputError, match=r"real: got int64"):
        function(torch.zeros(10, 3, dtype=torch.int64), x)


def test_logits_are_no_probabilities():
    with pytest.raises(InputError, match="probabilities: rows must be non-negative and sum to 1"):
        distances.inception_score(torch.randn(10, 3))
