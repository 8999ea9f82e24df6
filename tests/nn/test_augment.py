"""DiffAugment and instance noise: what they do to images, and that they can be differentiated twice."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganfast import nn as gnn


def drawn(module, x, seed=5):
    torch.manual_seed(seed)
    return module(x)


@pytest.mark.parametrize("channels", [1, 3])
def test_color_is_brightness_saturation_contrast_one_after_the_other(channels):
    x = torch.rand(6, channels, 5, 7, dtype=torch.float64) * 2 - 1
    u = drawn(lambda x: torch.rand(7, 6, 1, 1, 1, dtype=torch.float64), x)
    y = x + (u[0] - 0.5)
    grey = y.mean(1, keepdim=True)
    y = (y - grey) * (2 * u[1]) + grey
    mean = y.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(drawn(gnn.Augment("color"), x), (y - mean) * (u[2] + 0.5) + mean)


def test_translation_moves_each_image_by_whole_pixels_and_fills_with_zeros():
    x = torch.rand(400, 2, 16, 24) + 1
    y = drawn(gnn.Augment("translation"), x)
    found = set()
    for before, after in zip(x, y):
        rows, columns = after[0].any(1).nonzero().flatten(), after[0].any(0).nonzero().flatten()
        top, left = int(rows[0]), int(columns[0])
        down, right = top or int(rows[-1]) - 15, left or int(columns[-1]) - 23
        moved = torch.zeros_like(before)
        moved[:, max(down, 0) : 16 + min(down, 0), max(right, 0) : 24 + min(right, 0)] = before[
            :, max(-down, 0) : 16 - max(down, 0), max(-right, 0) : 24 - max(right, 0)
        ]
        assert torch.equal(after, moved)
        found.add((down, right))
    assert found == {(down, right) for down in range(-2, 3) for right in range(-3, 4)}  # an eighth, every way


@pytest.mark.parametrize("side", [8, 10, 7])
def test_cutout_takes_a_window_of_half_the_side(side):
    y = drawn(gnn.Augment("cutout"), torch.ones(600, 1, side, 12))
    holes = y == 0
    heights, widths = holes.any(3).sum(2), holes.any(2).sum(2)
    assert int(heights.max()) == int(side / 2 + 0.5) and int(widths.max()) == 6
    assert torch.equal(holes.sum((1, 2, 3)), (heights * widths).flatten())  # one rectangle
    often = holes.any(3).float().mean(0).flatten()  # of each row
    torch.testing.assert_close(often, often.flip(0), atol=0.1, rtol=0)


def test_each_sample_and_each_call_has_its_own_draw_and_a_seed_repeats_it():
    augment, x = gnn.Augment(), torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1)
    first = drawn(augment, x)
    assert len({each.numpy().tobytes() for each in first}) == 8
    assert not torch.equal(augment(x), first) and torch.equal(drawn(augment, x), first)
    assert augment.eval()(x) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_and_orders_in_memory(dtype):
    x = torch.rand(4, 3, 16, 8, dtype=torch.float64) * 2 - 1
    wanted = drawn(gnn.Augment(), x.float())
    y = drawn(gnn.Augment(), x.to(dtype, memory_format=torch.channels_last))
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.float(), wanted, atol=6 * torch.finfo(dtype).eps, rtol=0)
    assert drawn(gnn.Augment(), x.to(dtype)).is_contiguous()


@pytest.mark.parametrize("module", [gnn.Augment(), gnn.InstanceNoise(0.3)], ids=["Augment", "InstanceNoise"])
def test_derivatives(module):
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: drawn(module, x), x)
    assert gradgradcheck(lambda x: drawn(module, x).pow(2), x)


def test_the_whole_of_it_compiles():
    x = torch.rand(4, 3, 8, 8)
    compiled = torch.compile(gnn.Augment(), backend="eager", fullgraph=True)
    torch.testing.assert_close(drawn(compiled, x), drawn(gnn.Augment(), x))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gnn.Augment("color,flip"), r"policy: got 'flip', needs some of color, translation, cutout"),
        (lambda: gnn.Augment()(torch.ones(2, 3)), r"x: got shape \(2, 3\), needs \[batch, channels, height, width\]"),
        (lambda: gnn.InstanceNoise(-1), "std: got -1, needs 0 or more"),
        (lambda: gnn.InstanceNoise(1, torch.ones(2)), r"decay: got shape \(2,\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_noise_fades_linearly_and_follows_a_static_tensor():
    noise, count = gnn.InstanceNoise(0.5), torch.tensor(25)
    x, decay = torch.zeros(200, 100), noise.decay
    for at, factor in ((count, 0.75), (50, 0.5), (200, 0.0)):
        noise.anneal(at, 100)
        assert noise.decay is decay and float(noise(x).std()) == pytest.approx(0.5 * factor, rel=0.03)
    noise.anneal(0, 100)
    assert noise.eval()(x) is x and noise.train()(x.half()).dtype == torch.float16
