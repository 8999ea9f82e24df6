"""Files as the authors of CycleGAN, CUT and pix2pix publish them."""

from collections import OrderedDict

import pytest
import torch

from ganfast.errors import InputError
from ganfast.models import cut, cyclegan, unet
from ganfast.models.translation import load_published


def published_resnet(blocks: int) -> dict[str, tuple]:
    """Key → shape of a published generator (resnet_9blocks, no dropout), of 2 features in the place of 64.

    Old files have running statistics of each InstanceNorm, which follows its convolution.
    """
    first, last = 10, 10 + blocks
    shapes = {1: (2, 3, 7, 7), 4: (4, 2, 3, 3), 7: (8, 4, 3, 3), last: (8, 4, 3, 3), last + 3: (4, 2, 3, 3)}
    shapes = {f"model.{k}": shape for k, shape in shapes.items()} | {f"model.{last + 7}": (3, 2, 7, 7)}
    for k in range(first, last):
        shapes |= {f"model.{k}.conv_block.{j}": (8, 8, 3, 3) for j in (1, 5)}
    found = {}
    for key, shape in shapes.items():
        after = shape[1] if key in (f"model.{last}", f"model.{last + 3}") else shape[0]  # transposed: [in, out]
        found |= {f"{key}.weight": shape, f"{key}.bias": (after,)}
        if key != f"model.{last + 7}":
            stem, _, k = key.rpartition(".")
            found |= {f"{stem}.{int(k) + 1}.{name}": (after,) for name in ("running_mean", "running_var")}
    return found


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_generator_is_loaded_strictly(prefix, tmp_path):
    shapes = published_resnet(9)
    assert "model.1.weight" in shapes and "model.10.conv_block.1.weight" in shapes
    assert "model.18.conv_block.5.bias" in shapes and "model.26.weight" in shapes
    tensors = OrderedDict((prefix + key, torch.randn(shape)) for key, shape in shapes.items())
    torch.save(tensors, tmp_path / "latest_net_G.pth")
    network = load_published(cyclegan.Generator(width=2), tmp_path / "latest_net_G.pth")
    assert torch.equal(network.model[10].conv_block[1].weight, tensors[f"{prefix}model.10.conv_block.1.weight"])
    assert torch.equal(network.model[26].bias, tensors[f"{prefix}model.26.bias"])
    assert len(network.state_dict()) == sum("running" not in key for key in shapes)


def test_a_published_generator_of_cut_is_loaded_strictly(tmp_path):
    """Nine blocks, of 2 features in the place of 64; the filters of Down, 3×3, and of Up, 4×4, are in the file."""
    convolutions = {
        1: (2, 3, 7, 7),
        4: (4, 2, 3, 3),
        8: (8, 4, 3, 3),
        22: (4, 8, 3, 3),
        26: (2, 4, 3, 3),
        30: (3, 2, 7, 7),
    }
    convolutions |= {f"{k}.conv_block.{j}": (8, 8, 3, 3) for k in range(12, 21) for j in (1, 5)}
    tensors = {}
    for key, shape in convolutions.items():
        tensors |= {f"model.{key}.weight": torch.randn(shape), f"model.{key}.bias": torch.randn(shape[0])}
    for key, width, row in ((7, 4, [1, 2, 1]), (11, 8, [1, 2, 1]), (21, 8, [1, 3, 3, 1]), (25, 4, [1, 3, 3, 1])):
        row = torch.tensor(row) / 4
        tensors[f"model.{key}.filt"] = torch.outer(row, row).repeat(width, 1, 1, 1)
    fresh = cut.Generator(width=2).state_dict()
    assert fresh.keys() == tensors.keys()
    assert all(torch.equal(fresh[key], value) for key, value in tensors.items() if key.endswith("filt"))
    torch.save(tensors, tmp_path / "latest_net_G.pth")
    network = load_published(cut.Generator(width=2), tmp_path / "latest_net_G.pth")
    assert torch.equal(network.model[26].weight, tensors["model.26.weight"])


def test_the_statistics_of_batchnorm_are_kept(tmp_path):
    network = unet.UNet(32, width=2)
    torch.save({key: value + 1 for key, value in network.state_dict().items()}, tmp_path / "net.pth")
    loaded = load_published(unet.UNet(32, width=2), tmp_path / "net.pth")
    for one, other in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True):
        assert torch.equal(one, other + 1)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"model.0.weight": torch.zeros(3)}, "net.pth: does not fit PatchDiscriminator .*: give the published file"),
        (torch.zeros(3), "net.pth: is no dictionary of tensors"),
        (b"nothing", "net.pth: no readable file of weights"),
        (None, "net.pth is not there"),
    ],
)
def test_other_files_are_refused_in_one_sentence(content, message, tmp_path):
    path = tmp_path / "net.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=message) as caught:
        load_published(cyclegan.PatchDiscriminator(width=2), path)
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_code_is_not_run(tmp_path):
    torch.save(unet.UNet(32, width=2), tmp_path / "net.pth")  # a pickled module
    with pytest.raises(InputError, match="no readable file of weights"):
        load_published(unet.UNet(32, width=2), tmp_path / "net.pth")
