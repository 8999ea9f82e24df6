"""L1, PSNR and SSIM of images beside the true ones."""

import numpy as np
import pytest
import torch

from ganfast.metrics.fidelity import fidelity_report, l1, psnr, ssim


def smooth(count, channels, height, width, seed=0):
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, height // 4, width // 4, generator=random) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def by_loops(x, y, size):
    """SSIM of two planes in [0, 1], window by window."""
    at = np.arange(size) - size // 2
    window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb, c = (
                (window * (a - ma) ** 2).sum(),
                (window * (b - mb) ** 2).sum(),
                (window * (a - ma) * (b - mb)).sum(),
            )
            found.append((2 * ma * mb + 1e-4) * (2 * c + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return np.mean(found)


@pytest.mark.parametrize("height, width, window", [(16, 20, 11), (8, 12, 7)])
def test_ssim_is_that_of_every_window(height, width, window):
    x = smooth(2, 3, height, width)
    y = (x + 0.3 * smooth(2, 3, height, width, seed=1)).clamp(-1, 1)
    planes = [((each + 1) / 2).double().numpy() for each in (x, y)]
    wanted = [np.mean([by_loops(planes[0][n, c], planes[1][n, c], window) for c in range(3)]) for n in range(2)]
    assert ssim(x, y).numpy() == pytest.approx(wanted, abs=1e-4)


def test_what_measures_say_of_equal_and_of_shifted_images():
    x = smooth(3, 1, 16, 16) / 2
    assert ssim(x, x).tolist() == pytest.approx([1] * 3) and psnr(x, x).min() > 100 and l1(x, x).max() == 0
    assert l1(x + 0.2, x).tolist() == pytest.approx([0.1] * 3, rel=1e-4)  # 2 is the whole range
    assert psnr(x + 0.2, x).tolist() == pytest.approx([20] * 3, rel=1e-4)
    assert (ssim(x, -x) < 0.5).all()


def test_a_report_has_trivial_answers_and_the_mean():
    true = smooth(20, 1, 16, 16)
    report = fidelity_report(true * 0.9, true, {"input": -true})
    assert set(report.trivial) == {"input", "mean"} and report.count == 20
    assert report.values["l1"] == pytest.approx(0.05 * true.abs().mean().item(), rel=1e-4)
    assert report.trivial["mean"]["l1"] == pytest.approx((true - true.mean(0)).abs().mean().item() / 2, rel=1e-4)
    assert report.values["psnr"] > report.trivial["mean"]["psnr"] > report.trivial["input"]["psnr"]
    assert "generated" in str(report) and "ssim" in str(report)
