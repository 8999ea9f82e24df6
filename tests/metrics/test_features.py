"""Feature networks: recognised by their keys, read without running code, and true to what they were trained for."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ganfast.data import open_dataset
from ganfast.errors import InputError
from ganfast.metrics import features, lenet
from ganfast.metrics.lenet import normalise
from ganfast.models.inception import InceptionV3, as_tensorflow
from ganfast.models.mobilenet import MobileNetV2
from ganfast.models.published import resized
from ganfast.models.squeezenet import SqueezeNet
from ganfast.models.vit import DINOv2

MOBILENET = "features/mobilenet_v2_imagenet_fp16.npz"
SQUEEZENET = "features/squeezenet_v1.0_imagenet_deepcompressed.npz"
MACAW, LIGHTHOUSE = 88, 437  # classes of ImageNet


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits", size=16)


def write(path, tensors: dict) -> None:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in tensors.items()})
    else:
        torch.save(tensors, path)


@pytest.mark.parametrize("make, suffix, name, width, classes", [
    (MobileNetV2, ".pth", "mobilenet", 1280, 1000), (SqueezeNet, ".npz", "squeezenet", 512, 1000),
    (InceptionV3, ".pth", "inception", 2048, 1008), (lambda: DINOv2(384, 12), ".safetensors", "dinov2-vits", 384, 0),
], ids=["mobilenet", "squeezenet", "inception", "dinov2"])  # fmt: skip
def test_weights_are_known_by_their_keys(make, suffix, name, width, classes, tmp_path):
    with torch.device("meta"):
        module = make()
    for value in module.to_empty(device="cpu").state_dict().values():
        value.normal_(0.0, 0.02).abs_() if value.is_floating_point() else value.zero_()
    write(tmp_path / f"w{suffix}", module.state_dict())
    state = torch.get_rng_state()
    network = features.published(tmp_path / f"w{suffix}")
    assert torch.equal(state, torch.get_rng_state())
    assert network.name == name
    assert network.frechet == {"inception": "fid-inception"}.get(name, f"frechet-{name}")
    images = torch.rand(2, 1, 20, 16) * 2 - 1  # grey and no square
    with torch.no_grad():
        found, logits = network.module(images)
        again, _ = module.eval()(images.expand(-1, 3, -1, -1))
    assert torch.allclose(found, again, atol=1e-5) and found.shape == (2, width)
    assert logits is None if not classes else logits.shape == (2, classes)


@pytest.mark.parametrize("make, count, some", [
    (InceptionV3, 94 * 6 + 2, ("Conv2d_1a_3x3.bn.running_var", "Mixed_5b.branch5x5_2.conv.weight",
                               "Mixed_6e.branch7x7dbl_5.bn.bias", "Mixed_7a.branch7x7x3_4.conv.weight",
                               "Mixed_7c.branch3x3dbl_3b.conv.weight", "fc.bias")),
    (lambda: DINOv2(384, 12), 12 * 14 + 7, ("cls_token", "mask_token", "patch_embed.proj.bias", "blocks.0.ls1.gamma",
                                            "blocks.11.attn.qkv.weight", "blocks.3.mlp.fc2.bias", "norm.weight")),
], ids=["inception", "dinov2"])  # fmt: skip
def test_names_of_the_published_files(make, count, some):
    with torch.device("meta"):
        found = make().state_dict()
    assert len(found) == count and set(some) <= set(found)


def test_sizes_of_the_published_networks():
    with torch.device("meta"):
        networks = {"inception": InceptionV3(), "s": DINOv2(384, 12), "l": DINOv2(1024, 24)}
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert sizes["inception"] == 21_785_568 + 1008 * 2049  # torchvision's without its own classifier, and FID's
    assert round(sizes["s"] / 1e6) == 22 and round(sizes["l"] / 1e6) == 304  # of the paper's table


def test_tensorflows_resize():
    """By a factor of two, pixels at even places stay and the others lie between; the last one is repeated."""
    x = torch.randn(1, 3, 4, 4)
    y = as_tensorflow(x, 8)
    assert torch.equal(y[..., ::2, ::2], x)
    assert torch.allclose(y[..., 0, 1], (x[..., 0, 0] + x[..., 0, 1]) / 2)
    assert torch.equal(y[..., 0, 7], x[..., 0, 3])


def test_shrinking_is_antialiased():
    stripes = (torch.arange(64) % 2 * 2 - 1.0).expand(1, 3, 64, 64)
    assert resized(stripes, 16, "bilinear")[..., 2:-2].abs().max() < 0.1


def test_what_holds_no_known_network(tmp_path):
    with pytest.raises(InputError, match=r"w\.pth is not there"):
        features.published(tmp_path / "w.pth")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"holds no network that is known here \(layer.weight, …\)"):
        features.published(tmp_path / "w.pth")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "code.pth")  # a pickle of a class
    with pytest.raises(InputError, match="no readable file of weights"):
        features.published(tmp_path / "code.pth")
    torch.save(torch.zeros(3), tmp_path / "t.pth")
    with pytest.raises(InputError, match="is no dictionary of tensors"):
        features.published(tmp_path / "t.pth")
    (tmp_path / "w.npz").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(InputError, match="no readable file of weights"):
        features.published(tmp_path / "w.npz")
    tensors = SqueezeNet().state_dict()
    tensors.pop("conv1.bias")
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"does not fit squeezenet \(.*conv1.bias"):
        features.published(tmp_path / "w.safetensors")


def test_images_of_other_channels_are_refused():
    with pytest.raises(InputError, match=r"images: got \[2, 2, 8, 8\]"):
        SqueezeNet()(torch.zeros(2, 2, 8, 8))


def test_the_classifier_of_the_data_is_trained_once(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path))
    learn = lenet.learn
    monkeypatch.setattr(lenet, "learn", lambda net, data, rows, steps, progress: learn(net, data, rows, 80, progress))
    first = features.of_data(digits)
    monkeypatch.setattr(lenet, "learn", None)  # is not called any more
    second = features.of_data(digits)
    assert first.name == "lenet" and first.weights == second.weights
    assert len(list((tmp_path / "scores").glob("lenet-*.safetensors"))) == 1
    rows = torch.arange(100)
    found, probabilities = features.of_rows(second, digits, rows)
    assert found.shape == (100, 128) and (probabilities.argmax(1) == digits.labels[:100]).float().mean() > 0.9
    assert torch.equal(found, features.of_images(second, normalise(digits.samples[rows]))[0])


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_only(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path))
    first = lenet.fitted(digits, steps=3)
    (file,) = (tmp_path / "scores").iterdir()
    file.write_bytes(b"damaged")
    assert lenet.fitted(digits, steps=3).accuracy == first.accuracy
    (tmp_path / "a file").touch()
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path / "a file"))
    with pytest.warns(UserWarning, match="cannot be written"):
        assert lenet.fitted(digits, steps=3).accuracy == first.accuracy


def kodak(real_data, *numbers: int) -> torch.Tensor:
    with zipfile.ZipFile(real_data / "photos" / "kodak-384x256.zip") as archive:
        names = [n for k in numbers for n in archive.namelist() if f"{k:02d}." in n]
        pictures = [np.array(Image.open(io.BytesIO(archive.read(n))).convert("RGB").resize((256, 256))) for n in names]
    return normalise(torch.from_numpy(np.stack(pictures)))


@pytest.mark.parametrize("file", [MOBILENET, SQUEEZENET])
def test_published_weights_see_what_is_in_a_picture(file, real_data):
    """Kodak's parrots and its lighthouse: keys, channel order, scale and resizing are right."""
    network = features.published(real_data / file)
    _, probabilities = features.of_images(network, kodak(real_data, 23, 19))
    assert probabilities.argmax(1).tolist() == [MACAW, LIGHTHOUSE] and probabilities.amax(1).min() > 0.9


@pytest.mark.slow
def test_classes_lie_closer_by_features_than_by_pixels(real_data):
    data = open_dataset(str(real_data / "flowers" / "flowers-64.zip"), progress=False)
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:400]

    def agreement(points: torch.Tensor) -> float:
        """The share of rows whose nearest neighbour is of their class."""
        distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
        return float((data.labels[rows][distances.argmin(1)] == data.labels[rows]).float().mean())

    found, _ = features.of_rows(features.published(real_data / MOBILENET), data, rows)
    assert agreement(found) > agreement(data.samples[rows].flatten(1).float()) + 0.2
