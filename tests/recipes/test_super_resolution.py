"""srgan: its two games are the paper's, written out; style transfer: its losses, and what a run does to them."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from training.games import images, load, make, means

from ganfast import Trainer
from ganfast.data import Dataset
from ganfast.errors import InputError
from ganfast.metrics import features
from ganfast.models import srgan, vgg
from ganfast.objectives.style import gram, style_loss
from ganfast.recipes import RECIPES

SRGAN, StyleTransfer = RECIPES["srgan"], RECIPES["style-transfer"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of VGG16's tensors, drawn at random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(vgg.Maps().state_dict(), path)
    return str(path)


def picture(seed, size=16):
    random = torch.Generator().manual_seed(seed)
    return Dataset(f"p{seed}", images=torch.randint(256, (1, size, size, 3), dtype=torch.uint8, generator=random))


def small(x, scale):
    return F.interpolate(x, scale_factor=1 / scale, mode="bicubic", antialias=True)


def test_the_first_game_is_the_squared_error_and_the_second_one_goes_on_from_it():
    first, second = SRGAN(width=4, blocks=1, scale=2).stages(10)
    assert (first.steps, second.steps) == (8, 2)
    step = make(first.game)
    assert set(step.state.networks) == {"G"}
    load(step)
    x = step.state.loaders[0].batch(0)["images"]
    wanted = F.mse_loss(step.state.networks["G"](small(x, 2)), x).item()
    step()
    assert means(step)["loss_g"] == pytest.approx(wanted, rel=1e-5)
    trained = {name: value.clone() for name, value in step.state.networks["G"].state_dict().items()}
    step.state.begin(second.game, step.state.specs, 1)
    for name, value in step.state.networks["G"].state_dict().items():
        assert torch.equal(value, trained[name]), name
    assert [stage.steps for stage in SRGAN(pretraining=1).stages(10)] == [10]
    assert [stage.game.adversarial_stage for stage in SRGAN(pretraining=0).stages(10)] == [True]


@pytest.mark.parametrize("features", [False, True])
def test_the_second_game_by_hand(features, weights):
    step = make(SRGAN(width=4, blocks=1, scale=2, adversarial=0.5, vgg=weights if features else ""))
    load(step)
    nets, x = step.state.networks, step.state.loaders[0].batch(0)["images"]
    fake = nets["G"](small(x, 2))
    bce = F.binary_cross_entropy_with_logits
    real, judged = nets["D"](x), nets["D"](fake.detach())
    loss_d = bce(real, torch.ones_like(real)) + bce(judged, torch.zeros_like(judged))
    content = F.mse_loss(fake, x)
    if features:
        state = step.state.noise.get_state()
        tops, lefts = (torch.randint(8, (len(x),), generator=step.state.noise).tolist() for _ in range(2))
        step.state.noise.set_state(state)
        own, wanted = (
            torch.stack([each[:, top : top + 8, left : left + 8] for each, top, left in zip(images, tops, lefts)])
            for images in (fake, x)
        )
        content = F.mse_loss(nets["V"](own)[-1] / 12.75, nets["V"](wanted)[-1] / 12.75)
    step()
    found = means(step)
    assert found["loss_d"] == pytest.approx(loss_d.item(), rel=1e-4)
    assert found["content"] == pytest.approx(content.item(), rel=1e-4)
    assert found["loss_g"] > found["content"]  # by the adversarial loss, of a D that has moved


def test_the_generator_takes_any_size_and_begins_at_the_bicubic_picture():
    for scale in (2, 4):
        x = torch.randn(2, 3, 7, 10)
        network = srgan.SRResNet(3, 4, 1, scale, residual=True)
        assert torch.equal(network(x), srgan.enlarged(x, scale))
        plain = srgan.SRResNet(3, 4, 1, scale)
        assert plain(x).shape == (2, 3, 7 * scale, 10 * scale) and not torch.equal(plain(x), srgan.enlarged(x, scale))
    recipe = SRGAN(scale=2)
    x = torch.rand(1, 3, 12, 20) * 2 - 1
    low = recipe.question({"x": x}, torch.Generator())["low"]
    assert torch.equal(low, small(x, 2)) and recipe.trivial({"low": low})["bicubic"].shape == x.shape
    with pytest.raises(InputError, match="scale must be 2 or 4, got 3"):
        SRGAN(scale=3)
    with pytest.raises(InputError, match="pretraining must lie in"):
        SRGAN(pretraining=1.5)


def test_vgg_sees_bgr_less_its_mean(weights):
    network = vgg.Maps()
    network.load(weights)
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    bgr = (x.flip(1) + 1) * 127.5 - torch.tensor(vgg.MEAN)[:, None, None]
    first = F.conv2d(bgr, network.conv1_1.weight, network.conv1_1.bias, padding=1).relu()
    found = dict(zip(vgg.LAYERS, network(x)))
    torch.testing.assert_close(found["conv1_1"], first)
    assert [tuple(found[name].shape[1:]) for name in ("conv1_2", "conv2_2", "conv3_3", "conv4_1")] == [
        (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)
    ]  # fmt: skip
    published = features.published(weights)
    assert published.name == "vgg16" and published.module(x)[0].shape == (1, 512)
    with pytest.raises(InputError, match=r"--vgg nowhere\.npz is not there"):
        network.load("nowhere.npz")


def test_the_style_loss_is_that_of_equation_4():
    a, b = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64)
    places, found = 20, 0
    for i in range(3):
        for j in range(3):
            of_a, of_b = ((m[0, i] * m[0, j]).sum() for m in (a, b))
            found += (of_a - of_b) ** 2 / (4 * 3**2 * places**2)
    assert style_loss([a], [gram(b)]).item() == pytest.approx(found.item())
    assert style_loss([a, b], [gram(b)] * 2).item() == pytest.approx(found.item() / 2)


def test_style_transfer_brings_the_style_nearer_and_keeps_pixels_in_range(tmp_path, weights):
    recipe = StyleTransfer(vgg=weights, lr=0.1)
    trainer = Trainer(recipe, [picture(0), picture(1)], steps=6, outdir=str(tmp_path), device="cpu", log_every=1)
    content = (picture(0).samples.permute(0, 3, 1, 2) / 127.5 - 1).float()
    assert torch.equal(trainer.trained(content), content)  # begins as the picture
    run = trainer.train(progress=False)
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert rows[-1]["style_loss"] < 0.7 * rows[0]["style_loss"] and rows[0]["content_loss"] < 1e-6
    assert (content + trainer.state.networks["P"].pixels).abs().max() <= 1 + 1e-6
    whole = recipe.distances(content, {"content": content, "style": content.flip(3)})
    assert whole["content"] == 0 and whole["style"] > 0


def test_style_transfer_says_what_it_needs(tmp_path, weights):
    with pytest.raises(InputError, match=r"give its weights \(--vgg FILE\)"):
        Trainer(StyleTransfer(), [picture(0), picture(1)], steps=1, outdir=str(tmp_path), device="cpu")
    with pytest.raises(InputError, match="is about one picture, and noise has 40: give one of them"):
        Trainer(StyleTransfer(vgg=weights), [images(channels=3), picture(1)], steps=1, outdir=str(tmp_path))
