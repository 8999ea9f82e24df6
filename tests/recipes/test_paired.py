"""pix2pix: its step is the paper's, written out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from training.games import images, make, means
from training.games import load as fill

from ganfast import Trainer, load
from ganfast.data import Spec
from ganfast.errors import InputError
from ganfast.metrics.fidelity import fidelity_report
from ganfast.recipes import RECIPES, Trained
from ganfast.recipes.trained import save
from ganfast.training.answers import answers

Pix2Pix = RECIPES["pix2pix"]


def by_hand(recipe, nets, given, answer):
    """One step of D on log D(x, y) + log(1 − D(x, G(x))), halved, one of G on −log D(x, G(x)) + λ·‖y − G(x)‖₁."""
    G, D = nets["G"], nets["D"]
    adam = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (G, D)]
    bce = F.binary_cross_entropy_with_logits
    fake = G(given)
    real_scores, fake_scores = D(torch.cat([given, answer], 1)), D(torch.cat([given, fake.detach()], 1))
    loss_d = (bce(real_scores, torch.ones_like(real_scores)) + bce(fake_scores, torch.zeros_like(fake_scores))) / 2
    adam[1].zero_grad(), loss_d.backward(), adam[1].step()
    fooled = D(torch.cat([given, fake], 1))
    l1 = F.l1_loss(fake, answer)
    loss_g = bce(fooled, torch.ones_like(fooled)) + 100 * l1
    adam[0].zero_grad(), loss_g.backward(), adam[0].step()
    return loss_d.item(), loss_g.item(), l1.item()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_a_step_is_the_one_by_hand(direction, batch):
    recipe = Pix2Pix(width=4, layers=2, direction=direction, dropout=0.0)
    step = make(recipe, batch=batch)
    fill(step)
    nets, columns = copy.deepcopy(step.state.networks), step.state.loaders[0].batch(0)
    sides = [columns["images"], columns["targets"]]
    expected = by_hand(recipe, nets, *(sides if direction == "ab" else sides[::-1]))
    step()
    found = means(step)
    assert [found[name] for name in ("loss_d", "loss_g", "l1")] == pytest.approx(expected, rel=1e-5)
    for name, network in nets.items():
        for one, other in zip(step.state.networks[name].parameters(), network.parameters()):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_l1_loss_alone():
    step = make(Pix2Pix(width=4, layers=1, adversarial=0.0, l1=1.0, dropout=0.0))
    fill(step)
    columns = step.state.loaders[0].batch(0)
    wanted = F.l1_loss(step.state.networks["G"](columns["images"]), columns["targets"]).item()
    before = copy.deepcopy(step.state.networks["D"])
    step()
    found = means(step)
    assert found["loss_g"] == found["l1"] == pytest.approx(wanted, rel=1e-5) and "loss_d" not in found
    for one, other in zip(step.state.networks["D"].parameters(), before.parameters()):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"l1": 0.0, "adversarial": 0.0}, "l1 must be above 0 where --adversarial is 0"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"norm": "layer"}, "norm must be batch or instance, got 'layer'"),
    ],
)
def test_impossible_fields_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        Pix2Pix(**fields)


def test_sizes_that_do_not_fit_are_named():
    for size, fields, message in (
        (16, {}, r"layers must be at most 2 for images of 16 pixels, got 3 \(--layers\)"),
        (24, {"layers": 1}, "multiples of 16, not 24 × 24"),
    ):
        with pytest.raises(InputError, match=message):
            Pix2Pix(**fields).networks({name: Spec("images", (3, size, size)) for name in "xy"})


def test_a_network_translates_one_way(tmp_path):
    """Sides may differ in channels, and a U-Net that was trained one way is not asked for the other."""
    recipe, specs = (
        Pix2Pix(width=2, layers=1, direction="ba"),
        {c: Spec("images", (k, 16, 16)) for c, k in (("x", 3), ("y", 1))},
    )
    save(Trained(recipe, specs, {"G": recipe.networks(specs)["G"]}), tmp_path / "generator.safetensors")
    trained = load(tmp_path)
    assert trained.arguments == ("y",) and trained(torch.zeros(2, 1, 16, 16)).shape == (2, 3, 16, 16)
    assert recipe.answer == "x"
    with pytest.raises(InputError, match="recipe pix2pix has no directions: leave it out"):
        load(tmp_path, direction="ab")


@pytest.mark.parametrize(
    "name, fields, trivial",
    [
        ("pix2pix", {"layers": 1}, ["input", "mean"]),
        ("galaxy", {"layers": 1}, ["input", "richardson-lucy-3", "richardson-lucy-10", "richardson-lucy-30", "mean"]),
        ("inpaint", {"code": 3}, ["mean colour", "diffusion", "mean"]),
    ],
)
def test_answers_stand_beside_trivial_ones(name, fields, trivial, tmp_path):
    """After a step on batches of the recipe's own size, which BatchNorm does not keep from being one."""
    recipe, data = RECIPES[name](width=2, **fields), images(64)
    trainer = Trainer(recipe, data, steps=1, outdir=str(tmp_path))
    assert trainer.options.batch == (64 if name == "inpaint" else 1)
    trainer.train(progress=False)
    made, *others = answers(load(trainer.run), [data], 3)
    report = fidelity_report(made, *others)
    assert list(report.trivial) == trivial and made.shape == (3, 1, 16, 16)
    assert report.count == 3 and 0 < report.values["l1"] < 1
    if name == "inpaint":  # three quarters of a picture are given
        assert report.values["l1"] < report.trivial["mean"]["l1"] / 2
