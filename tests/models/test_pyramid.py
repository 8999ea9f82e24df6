"""The Laplacian pyramid: exact, as Burt and Adelson have it, and differentiable."""

import pytest
import torch

from ganfast.errors import InputError
from ganfast.models.pyramid import collapse, down, gaussian, pyramid, up

KERNEL = torch.tensor([1.0, 4, 6, 4, 1], dtype=torch.float64) / 16


def image(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-15), (torch.float32, 1e-6), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_collapse_undoes_the_pyramid(dtype, bound, layout):
    x = image(2, 3, 32, 48, dtype=dtype).contiguous(memory_format=layout)
    levels = pyramid(x, 3)
    assert [tuple(each.shape[2:]) for each in levels] == [(4, 6), (8, 12), (16, 24), (32, 48)]
    assert torch.equal(levels[0], gaussian(x, 3)[0])
    again = collapse(levels)
    assert again.dtype == dtype and (again - x).abs().max() <= bound * x.abs().max()


def test_both_operators_are_convolutions_with_the_papers_kernel():
    """Away from the border, where what lies beyond plays no part."""
    x, weight = image(1, 1, 16, 20), torch.outer(KERNEL, KERNEL)[None, None]
    inner = (..., slice(1, -1), slice(1, -1))
    wanted = torch.nn.functional.conv2d(x, weight, stride=2, padding=2)
    assert torch.allclose(down(x)[inner], wanted[inner], atol=1e-14)
    wanted = torch.nn.functional.conv_transpose2d(x, 4 * weight, stride=2, padding=2, output_padding=1)
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(up(x)[inner], wanted[inner], atol=1e-14)


def test_a_constant_stays_one_up_to_the_border():
    x = torch.full((1, 2, 8, 8), 0.7, dtype=torch.float64)
    assert torch.allclose(down(x), x[..., :4, :4], atol=1e-15) and torch.allclose(up(x)[..., :8, :8], x, atol=1e-15)


def test_gradients():
    x = image(1, 2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(down, x) and torch.autograd.gradcheck(up, x)


def test_odd_sizes_are_refused():
    with pytest.raises(InputError, match=r"x must have an even height and width to be halved, got \(1, 1, 6, 5\)"):
        down(torch.zeros(1, 1, 6, 5))
    with pytest.raises(InputError, match="even"):
        pyramid(torch.zeros(1, 1, 12, 12), 3)
