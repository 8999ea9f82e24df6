import pytest
import torch

from ganfast.data import open_dataset
from ganfast.errors import InputError
from ganfast.metrics import class_report
from ganfast.metrics.lenet import normalise


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits", size=16)


def test_real_digits_look_real(digits):
    report = class_report(digits, normalise(digits.samples))
    assert report.accuracy > 0.93  # on digits it has not seen
    assert report.fake_confidence > 0.93 and report.distance < 0.02
    assert sum(report.fake_shares) == pytest.approx(1) and "classifier's accuracy" in str(report)


def test_collapse_shows_as_distance_and_noise_as_doubt(digits):
    threes = normalise(digits.samples[digits.labels == 3])
    report = class_report(digits, threes)
    assert report.fake_shares[3] > 0.9 and report.distance > 0.8
    noise = class_report(digits, torch.rand(500, 1, 16, 16) * 2 - 1)
    assert noise.fake_confidence < report.fake_confidence - 0.1


def test_agreement_is_the_share_of_samples_of_their_own_class(digits):
    samples, labels = normalise(digits.samples[:400]), digits.labels[:400]
    assert class_report(digits, samples, labels).agreement > 0.93
    wrong = class_report(digits, samples, (labels + 1) % 10)
    assert wrong.agreement < 0.07 and "its own class" not in str(wrong) and "to their own class" in str(wrong)
    alone = class_report(digits, samples, steps=5)
    assert alone.agreement is None and "own class" not in str(alone)
    with pytest.raises(InputError, match=r"classes: got \[3\], needs one for each of the 400 samples"):
        class_report(digits, samples, labels[:3])


def test_scores_of_each_class(digits):
    samples, labels = normalise(digits.samples), digits.labels
    real = class_report(digits, samples, labels)
    assert len(real.agreements) == len(real.within) == len(real.within_floors) == 10
    mean = sum(share * agreed for share, agreed in zip(real.real_shares, real.agreements))
    assert min(real.agreements) > 0.8 and mean == pytest.approx(real.agreement)
    assert 0 < real.intra < 2 * real.intra_floor and real.intra == pytest.approx(sum(real.within) / 10)
    swapped = torch.where(labels == 3, 5, torch.where(labels == 5, 3, labels))  # two classes for one another
    wrong = class_report(digits, samples, swapped)
    assert wrong.agreements[3] < 0.1 and wrong.agreements[4] == real.agreements[4]
    assert wrong.within[3] > 5 * real.within[3] and wrong.within[4] == real.within[4]
    assert wrong.within_floors == real.within_floors


def test_a_class_without_samples_has_no_scores(digits):
    some = digits.labels != 7
    report = class_report(digits, normalise(digits.samples[some]), digits.labels[some])
    assert report.agreements[7] is report.within[7] is report.within_floors[7] is None and "     -" in str(report)
    assert report.intra == pytest.approx(sum(n for n in report.within if n is not None) / 9)
    alone = class_report(digits, normalise(digits.samples[:40]))
    assert alone.agreements is alone.within is alone.intra is None and "Fréchet" not in str(alone)


def test_repeatable_and_leaves_the_global_random_state(digits):
    state = torch.get_rng_state()
    reports = [class_report(digits, normalise(digits.samples[:200]), steps=20) for _ in range(2)]
    assert reports[0] == reports[1] and torch.equal(state, torch.get_rng_state())


def test_what_cannot_be_compared_is_refused(digits):
    with pytest.raises(InputError, match="no labelled images"):
        class_report(open_dataset("gaussians:ring8"), torch.zeros(4, 2))
    with pytest.raises(InputError, match=r"\(3, 16, 16\)"):
        class_report(digits, torch.zeros(4, 3, 16, 16))
