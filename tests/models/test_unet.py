"""The U-Net of pix2pix and its discriminator of patches: published keys, sizes, what evaluation normalises by."""

import pytest
import torch
from torch import nn

from ganfast.errors import InputError
from ganfast.models import cyclegan, unet
from ganfast.models.norms import BatchNorm2d


def of_norm(key: str, features: int) -> dict:
    vectors = {f"{key}.{name}": (features,) for name in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{key}.num_batches_tracked": ()}


def published_unet_256() -> dict[str, tuple]:
    """Key → shape of a published generator (pytorch-CycleGAN-and-pix2pix, unet_256, 54.414 million parameters)."""
    features = [64, 128, 256, 512, 512, 512, 512, 512]
    shapes = {"model.model.0.weight": (64, 3, 4, 4), "model.model.3.weight": (128, 3, 4, 4), "model.model.3.bias": (3,)}
    prefix = "model.model.1.model."
    for k in range(1, 8):
        outer, inner = features[k - 1], features[k]
        shapes[f"{prefix}1.weight"] = (inner, outer, 4, 4)
        if k < 7:
            shapes |= of_norm(f"{prefix}2", inner) | of_norm(f"{prefix}6", outer)
            shapes[f"{prefix}5.weight"] = (2 * inner, outer, 4, 4)
        else:  # one pixel: no norm, and nothing within
            shapes |= of_norm(f"{prefix}4", outer) | {f"{prefix}3.weight": (inner, outer, 4, 4)}
        prefix += "3.model."
    return shapes


def published_patches() -> dict[str, tuple]:
    """Key → shape of its discriminator ("basic", 2.769 million)."""
    widths = [6, 64, 128, 256, 512, 1]
    places = [0, 2, 5, 8, 11]
    shapes = {f"model.{k}.weight": (b, a, 4, 4) for k, a, b in zip(places, widths, widths[1:])}
    for k, features in ((3, 128), (6, 256), (9, 512)):
        shapes |= of_norm(f"model.{k}", features)
    return shapes | {"model.0.bias": (64,), "model.11.bias": (1,)}


@pytest.mark.parametrize(
    "make, shapes, millions",
    [
        (lambda: unet.UNet(256), published_unet_256(), 54.414),
        (lambda: cyclegan.PatchDiscriminator(6, norm="batch"), published_patches(), 2.769),
    ],
)
def test_published_files_fit(make, shapes, millions):
    with torch.device("meta"):
        network = make()
        network.load_state_dict({key: torch.empty(shape) for key, shape in shapes.items()}, assign=True)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


@pytest.mark.parametrize(
    "size, depth, least", [(32, 5, (1, 1)), ((32, 64), 5, (1, 2)), (48, 4, (3, 3)), ((96, 64), 5, (3, 2))]
)
def test_sides_halve_as_long_as_they_are_even(size, depth, least):
    network, seen = unet.UNet(size, 1, 2, width=2), []
    for each in network.modules():
        if isinstance(each, nn.Conv2d):
            each.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[2:])))
    sides = (size, size) if isinstance(size, int) else size
    assert network(torch.randn(2, 1, *sides)).shape == (2, 2, *sides)
    assert network.depth == len(seen) == depth and min(seen) == least


@pytest.mark.parametrize("size", [24, (16, 40)])
def test_other_sizes_are_refused(size):
    with pytest.raises(InputError, match=r"multiples of 16, not (24 × 24|16 × 40): .*\(--size\)"):
        unet.UNet(size)


def test_dropout_stands_in_the_first_three_layers_that_keep_512_features():
    found = {}
    for size in (16, 32, 64, 128, 256, 512):
        with torch.device("meta"):
            level, places = unet.UNet(size).model, []
        while level is not None:
            places.append(any(isinstance(each, nn.Dropout) for each in level.model))
            level = next((each for each in level.model if isinstance(each, unet.Level)), None)
        found[size] = places[::-1]  # from the bottleneck on
    assert found[256] == [True] * 3 + [False] * 5 and found[512] == [True] * 3 + [False] * 6
    assert [sum(found[size]) for size in (16, 32, 64, 128)] == [0, 1, 2, 3] and found[64][:2] == [True] * 2


def test_batches_of_one_are_normalised_alike_in_training_and_evaluation():
    """And in evaluation each of several as if it were alone."""
    network = unet.UNet(32, width=2, dropout=0.0)
    for each in network.modules():
        if isinstance(each, BatchNorm2d):
            nn.init.normal_(each.weight), nn.init.normal_(each.bias)
    images = torch.randn(3, 3, 32, 32)
    alone = torch.cat([network(image[None]) for image in images])
    assert not torch.allclose(network(images), alone, atol=1e-2)
    torch.testing.assert_close(network.eval()(images), alone, rtol=1e-4, atol=1e-5)
    layer = BatchNorm2d(3)
    assert torch.equal(layer(images), nn.BatchNorm2d(3)(images)) and layer.num_batches_tracked == 0


def test_the_decoder_sees_what_the_encoder_saw():
    """Without what passes the bottleneck an image still depends on each of its pixels, by the outermost skip."""
    network = unet.UNet(32, 1, 1, width=4, norm="instance").eval()
    level = network.model
    while inner := next((each for each in level.model if isinstance(each, unet.Level)), None):
        level = inner
    nn.init.zeros_(next(each for each in level.model if isinstance(each, nn.ConvTranspose2d)).weight)
    image = torch.randn(1, 1, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image)[0, 0, 10, 20], image)
    assert gradient[0, 0, 10, 20] != 0
