"""The reference of interpolate against a loop over samples."""

import pytest
import torch

from ganfast.reference import interpolate


@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (3, 5), (3,)])
def test_interpolation_has_one_epsilon_per_sample(shape):
    real, fake = torch.randn(shape), torch.randn(shape)
    epsilon = torch.tensor([0.0, 0.25, 1.0])
    out = interpolate(real, fake, epsilon)
    for i, e in enumerate(epsilon.tolist()):
        torch.testing.assert_close(out[i], e * real[i] + (1 - e) * fake[i])
        torch.testing.assert_close(interpolate(real, None, epsilon)[i], e * real[i])
        torch.testing.assert_close(interpolate(None, fake, epsilon)[i], (1 - e) * fake[i])


def test_half_samples_are_rounded_once():
    real, fake = torch.randn(100, 40).bfloat16(), torch.randn(100, 40).bfloat16()
    epsilon = torch.rand(100)
    e = epsilon.double()[:, None]
    wanted = (e * real.double() + (1 - e) * fake.double()).float().bfloat16()
    different = (interpolate(real, fake, epsilon) != wanted).float().mean()
    assert float(different) < 1e-3  # where fp32 itself lies on a tie
