"""From pictures to codes: what a generator has made is found again, and from an encoder's code it only gets better."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from ganfast.data.columns import Labels, Spec
from ganfast.errors import InputError
from ganfast.metrics.fidelity import psnr
from ganfast.recipes import DCGAN, Recipe, Trained
from ganfast.training import projecting, sampling
from ganfast.training.projecting import project

IMAGES, CLASSES = Spec("images", (1, 16, 16)), Spec("labels", (), ("a", "b", "c"))


class Linear(nn.Module):
    """z [B, 5] → smooth images, another map for each class."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Parameter(torch.randn(3, 5, 256, generator=torch.Generator().manual_seed(0)) / 5)

    def forward(self, z, y):
        return torch.einsum("bn,bnp->bp", z, self.maps[y]).tanh().unflatten(1, (1, 16, 16))


@dataclass(frozen=True, kw_only=True)
class ByClass(Recipe):
    name = "linear-by-class"
    given = {"y": Labels()}
    latent_dim: int = 5

    def networks(self, data):
        return {"G": Linear()}

    def sample(self, nets, z, given):
        return nets["G"](z, given["y"])


@dataclass(frozen=True, kw_only=True)
class Encoding(Recipe):
    """Its encoder is right but for noise."""

    name = "encoding"
    latent_dim: int = 5

    def networks(self, data):
        return {"G": Linear()}

    def sample(self, nets, z, given):
        return nets["G"](z, torch.zeros(len(z), dtype=torch.int64))

    def encode(self, nets, x):
        z = x.clamp(-0.999, 0.999).atanh().flatten(1) @ torch.linalg.pinv(nets["G"].maps[0])
        return z + torch.randn(z.shape, generator=torch.Generator().manual_seed(3)) / 2


def trained(recipe: Recipe) -> Trained:
    specs = {"x": IMAGES, "y": CLASSES}
    networks = recipe.networks(specs)
    return Trained(recipe, specs, {"G": networks["G"]}).eval()


def test_a_sample_is_found_again_in_its_class():
    made = trained(ByClass())
    z, y = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 2])
    images = made(z, y).detach()
    found = project(made, images, 100, classes=[0, 1, 2])
    assert torch.equal(found.classes, y)
    assert psnr(found.result, images).min() > 30 and (found.codes - z).abs().max() < 0.3
    assert torch.equal(found.result, sampling.decode_codes(made, found.codes, {"y": found.classes}))
    assert torch.equal(found.codes, project(made, images, 100, classes=[0, 1, 2]).codes)
    assert not torch.equal(found.start, project(made, images, 0, seed=1, classes=[0, 1, 2]).start)
    only = project(made, images, 9, classes=[1])
    assert only.classes.unique().tolist() == [1] and psnr(only.result, images)[0] < 25


def test_it_begins_at_the_best_of_drawn_latents():
    made = trained(ByClass())
    z = torch.randn(projecting.DRAWN, 5, generator=torch.Generator().manual_seed(4))
    images = made(z, torch.full((len(z),), 1)).detach()
    found = project(made, images[[5, 9]], 0, seed=4, classes=[1])
    assert torch.equal(found.start, found.result) and torch.equal(found.codes, z[[5, 9]])


def test_it_begins_at_the_encoders_code_and_gets_better():
    made = trained(Encoding())
    images = made(torch.randn(4, 5, generator=torch.Generator().manual_seed(2))).detach()
    found = project(made, images, 60)
    assert found.classes is None
    assert torch.equal(found.start, made.decode(made.encode(images)).detach())
    gain = psnr(found.result, images) - psnr(found.start, images)
    assert gain.min() > 5
    with pytest.raises(InputError, match=r"classes: got \[1\], needs some where"):
        project(made, images, classes=[1])


def test_codes_stay_typical():
    made = Trained(DCGAN(width=4, latent_dim=30), {"x": IMAGES}, DCGAN(width=4, latent_dim=30).networks({"x": IMAGES}))
    random = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0.0, 0.3, generator=random)
    noise = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1  # no generator makes it
    found = project(made.eval(), noise, 60)
    assert (found.codes.norm(dim=1) / 30**0.5 - 1).abs().max() < 0.3
    error = lambda images: (images - noise).square().mean((1, 2, 3))  # noqa: E731
    assert (error(found.result) < error(found.start)).all()
    torch.testing.assert_close(psnr(found.result, noise), 10 * torch.log10(4 / error(found.result)))


def test_recipes_without_codes_are_refused():
    made = Trained(ByClass(), {"x": Spec("points", (2,)), "y": CLASSES}, {"G": Linear()})
    with pytest.raises(InputError, match="recipe linear-by-class with this data makes no images of latents or codes"):
        project(made, torch.zeros(1, 2))
