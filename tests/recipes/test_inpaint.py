"""inpaint: the loss written out, what stays and what is filled; the fillings that it is compared with."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training.games import images, make, means
from training.games import load as fill

from ganfast.data.degradations import square
from ganfast.data.restoration import diffused, mean_filled
from ganfast.errors import InputError
from ganfast.recipes import RECIPES

Inpaint = RECIPES["inpaint"]


def test_a_step_is_the_one_by_hand():
    """16×16, a hole of 8×8 with a band of 2 pixels around it that counts ten times."""
    recipe = Inpaint(width=2, code=3, overlap=2, adversarial=0.25, beta1=0.0)
    step = make(recipe)
    fill(step)
    x, nets = step.state.loaders[0].batch(0)["images"], copy.deepcopy(step.state.networks)
    holed, weights = x.clone(), torch.zeros(16, 16)
    holed[:, :, 4:12, 4:12] = 1
    weights[2:14, 2:14] = 10
    weights[4:12, 4:12] = 1
    made = nets["G"](holed)
    filled = x.clone()
    filled[:, :, 4:12, 4:12] = made[:, :, 4:12, 4:12]
    bce = F.binary_cross_entropy_with_logits
    real, fake = nets["D"](x), nets["D"](filled.detach())
    loss_d = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
    adam = torch.optim.Adam(nets["D"].parameters(), 2e-4, (0.0, 0.999))  # a tenth of the filler's rate
    loss_d.backward(), adam.step()
    l2 = (weights * (made - x).square()).mean((0, 1)).sum() / (weights > 0).sum()
    fooled = nets["D"](filled)
    loss_g = 0.75 * l2 + 0.25 * bce(fooled, torch.ones_like(fooled))
    step()
    found = means(step)
    assert found["loss_d"] == pytest.approx(loss_d.item(), rel=1e-5)
    assert found["loss_g"] == pytest.approx(loss_g.item(), rel=1e-5)
    assert found["l2"] == pytest.approx((made - x)[:, :, 4:12, 4:12].square().mean().item(), rel=1e-5)


class Black(nn.Module):
    def forward(self, x):
        assert (x <= 1).all() and (x == 1).any()
        return torch.full_like(x, -1.0)


def test_the_middle_is_filled_and_the_rest_stays():
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    made = Inpaint().sample({"G": Black()}, None, {"holed": x})
    wanted = x.clone()
    wanted[:, :, 4:12, 4:12] = -1
    assert torch.equal(made, wanted)


def test_what_is_white_is_filled():
    x = torch.rand(2, 3, 16, 16) * 1.9 - 1
    x[0, :, 2:5, 3] = 1
    x[1, 0] = 1  # red, not white
    x[1, :, 9, 9] = 1
    made = Inpaint(holes="random").sample({"G": Black()}, None, {"holed": x})
    assert torch.equal((made != x).any(1), (x == 1).all(1)) and (made[0, :, 2:5, 3] == -1).all()


@pytest.mark.parametrize("holes", ["center", "random"])
def test_questions_are_pictures_with_holes(holes):
    recipe, x = Inpaint(holes=holes), torch.rand(50, 3, 16, 32) * 1.9 - 1
    asked, again = (recipe.question({"x": x}, torch.Generator().manual_seed(3)) for _ in range(2))
    holed, mask = asked["holed"], asked["mask"]
    assert torch.equal(holed, again["holed"]) and mask.shape == (50, 1, 16, 32)
    assert torch.equal((holed != x).any(1, keepdim=True).float(), mask) and (holed[holed != x] == 1).all()
    assert len(mask.unique(dim=0)) > 30 if holes == "random" else (mask.mean((1, 2, 3)) == 0.25).all()
    for name, made in recipe.trivial({key: value[:2] for key, value in asked.items()}).items():
        assert torch.equal(torch.where(mask[:2] > 0, x[:2], made), x[:2]) and not torch.equal(made, holed[:2]), name


def test_fillings_without_learning():
    mask = square(1, 12, 16)
    slope = (torch.arange(16.0) / 8 - 1).expand(1, 2, 12, 16)
    slope = slope * torch.tensor([1.0, -0.5])[:, None, None]
    torn = torch.where(mask > 0, 7.0, slope)
    torch.testing.assert_close(diffused(torn, mask), slope, atol=1e-4, rtol=0)  # a plane solves Laplace's equation
    filled = mean_filled(torn, mask)
    inside = mask.expand_as(torn) > 0
    mean = slope[:, 0][~inside[:, 0]].mean()
    assert torch.equal(filled[~inside], slope[~inside])
    torch.testing.assert_close(filled[:, 0][inside[:, 0]], mean.expand(48), atol=1e-6, rtol=0)


@pytest.mark.parametrize("fields", [{"code": 0}, {"overlap": -1}, {"adversarial": 1.0}, {"holes": "left"}])
def test_impossible_fields_are_named(fields):
    with pytest.raises(InputError, match=f"^{next(iter(fields))} must"):
        Inpaint(**fields)


def test_the_squared_error_alone():
    step = make(Inpaint(width=2, code=3, adversarial=0.0), [images(size=32)])
    fill(step)
    step()
    assert "loss_d" not in means(step)
