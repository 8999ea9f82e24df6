"""What takes information from images."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from ganfast.data.degradations import add_noise, downscale, gaussian_blur, rectangles, square, upscale
from ganfast.errors import InputError


def images(batch=3, channels=2, height=24, width=16):
    return torch.rand(batch, channels, height, width) * 2 - 1


def test_downscaling_is_that_of_pillow():
    x = images()
    small = downscale(x, 4)
    assert small.shape == (3, 2, 6, 4)
    for plane, made in zip(x.flatten(0, 1), small.flatten(0, 1)):
        wanted = Image.fromarray(plane.numpy()).resize((4, 6), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(made.numpy(), np.asarray(wanted), atol=1e-5)
    big = upscale(small, 4)
    wanted = Image.fromarray(small[0, 0].numpy()).resize((16, 24), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(big[0, 0].numpy(), np.asarray(wanted), atol=1e-5)
    for factor in (5, 0):
        with pytest.raises(InputError, match="factor must divide both sides of 16×24 pixels"):
            downscale(x, factor)


def test_a_constant_stays():
    x = torch.full((2, 3, 12, 8), 0.7)
    for made in (downscale(x, 2), upscale(x, 3), gaussian_blur(x, 1.7)):
        torch.testing.assert_close(made, torch.full_like(made, 0.7))


def test_a_blur_is_that_of_scipy():
    x = images()
    wanted = ndimage.gaussian_filter(x.numpy(), (0, 0, 1.5, 1.5), mode="mirror", radius=(0, 0, 5, 5))
    np.testing.assert_allclose(gaussian_blur(x, 1.5).numpy(), wanted, atol=1e-5)  # 3σ, rounded up: 5


def test_a_blur_of_its_own_for_each_image():
    x, sigma = images().double().requires_grad_(), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    blurred = gaussian_blur(x, sigma, radius=6)
    for k in range(3):
        torch.testing.assert_close(blurred[k : k + 1], gaussian_blur(x[k : k + 1], float(sigma[k]), radius=6))
    small = images(1, 1, 6, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gaussian_blur(x, 0.8), (small,))
    with pytest.raises(InputError, match="radius must be given"):
        gaussian_blur(x, sigma)
    with pytest.raises(InputError, match="radius 16 needs images of more pixels than 16×24"):
        gaussian_blur(x, 1.0, radius=16)


def test_noise_stays_within_the_range():
    x, noise = images(), torch.randn(3, 2, 24, 16)
    torch.testing.assert_close(add_noise(x, noise, 0.3), (x + 0.3 * noise).clamp(-1, 1))
    each = add_noise(x, noise, torch.tensor([0.0, 0.1, 5.0]))
    assert torch.equal(each[0], x[0]) and each.abs().max() == 1
    torch.testing.assert_close(each[1:2], add_noise(x[1:2], noise[1:2], 0.1))


def test_rectangles_lie_inside_and_everywhere():
    masks = rectangles(torch.rand(4000, 4), 8, 12)
    assert masks.shape == (4000, 1, 8, 12) and set(masks.unique().tolist()) == {0, 1}
    found = set()
    for mask in masks[:, 0].bool():
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        high, wide = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert mask.sum() == high * wide and 2 <= high <= 4 and 3 <= wide <= 6
        found.add((int(rows[0]), high))
    assert found == {(top, high) for high in (2, 3, 4) for top in range(8 - high + 1)}
    edges = rectangles(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1 - 2**-24] * 4]), 8, 12)[:, 0]
    assert edges[0, :2, :3].all() and edges[0].sum() == 6 and edges[1, 4:, 6:].all() and edges[1].sum() == 24
    small = rectangles(torch.rand(9, 4), 8, 8, least=0, most=0)  # a pixel at least
    assert torch.equal(small.sum((1, 2, 3)), torch.ones(9))


def test_the_square_in_the_middle():
    mask = square(2, 8, 12)
    assert mask.shape == (2, 1, 8, 12) and mask.sum() == 2 * 4 * 6 and mask[:, :, 2:6, 3:9].all()


@pytest.mark.gpu
def test_a_cuda_graph_holds_them():
    x, u = images().cuda(), torch.rand(3, 4, device="cuda")

    def change():
        mask = rectangles(u, 24, 16)
        return gaussian_blur(upscale(downscale(x, 2), 2), 1 + u[:, 0], radius=6) * (1 - mask)

    wanted = change()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = change()
    graph.replay()
    torch.testing.assert_close(made, wanted)
