"""Small recipes of every shape, as files that the commands take."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ganfast.data.columns import Attributes, Images, Labels, Points, Samples, Spec, Tokens
from ganfast.recipes import BEGAN, CGAN, DCGAN, GAN, RECIPES, CycleGAN, InfoGAN, Recipe, Trained
from ganfast.recipes.trained import save

KINDS = {
    Images.kind: Spec("images", (1, 16, 16)),
    Points.kind: Spec("points", (2,)),
    Samples.kind: Spec("images", (1, 16, 16)),
    Labels.kind: Spec("labels", (), ("cat", "dog", "t-shirt", "7")),
    Attributes.kind: Spec("attributes", (3,)),
    Tokens.kind: Spec("tokens", (5,)),
}


def saved(recipe: Recipe, path: str = "generator.safetensors", **specs: Spec) -> str:
    """The file of ``recipe`` with networks that have learnt nothing, all weights far from zero."""
    specs = {name: specs.get(name, KINDS[column.kind]) for name, column in recipe.columns.items()}
    networks = recipe.networks(specs)
    for network in networks.values():
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0.0, 0.3)
    trained = Trained(recipe, specs, {name: networks[name] for name in recipe.averaged})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save(trained, path, data="mine", step="3")
    return path


def dcgan() -> str:
    return saved(DCGAN(width=2, latent_dim=4))


def gan() -> str:
    return saved(GAN(width=8, latent_dim=3), x=KINDS[Points.kind])


def cgan(**specs: Spec) -> str:
    return saved(CGAN(width=2, latent_dim=4), **specs)


def infogan() -> str:
    return saved(InfoGAN(width=2, latent_dim=4, codes=2))


def began() -> str:
    return saved(BEGAN(width=2, latent_dim=4))


def cyclegan(channels: int = 1) -> str:
    images = Spec("images", (channels, 16, 16))
    return saved(CycleGAN(width=2, blocks=1, layers=1), a=images, b=images)


class Painter(nn.Module):
    """A condition of three numbers and one image → images, a shade for each number."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(4, 1, 1)

    def forward(self, x, numbers):
        return self.mix(torch.cat([x, numbers[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)).tanh()


class Twice(nn.Module):
    """The negative of twice as many pixels a side."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return -x.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0 * self.weight


@dataclass(frozen=True, kw_only=True)
class Doubled(Recipe):
    """Twice as many pixels a side, of pictures of any size; trained on pictures of which 8×8 are no --size."""

    name = "doubled"
    given = {"low": lambda data: Spec("images", (1, 8, 8))}
    answer, sides = "x", 2

    def networks(self, data):
        return {"G": Twice()}

    def sample(self, nets, z, given):
        return nets["G"](given["low"])


@dataclass(frozen=True, kw_only=True)
class Styles(Recipe):
    """Translates an image to a class, in the manner of a latent: everything at once."""

    name = "styles"
    columns = {"x": Images(), "y": Labels()}
    given = {"x": Images(), "y": Labels()}
    latent_dim: int = 2

    def networks(self, data):
        return {"G": Painter()}

    def sample(self, nets, z, given):
        return nets["G"](given["x"], torch.cat([z, given["y"].float()[:, None]], 1))


@dataclass(frozen=True, kw_only=True)
class ByClass(Recipe):
    """One picture for each class, and no latents."""

    name = "by-class"
    columns = {"x": Images(), "y": Labels()}
    given = {"y": Labels()}

    def networks(self, data):
        return {"G": nn.Embedding(data["y"].classes, 256)}

    def sample(self, nets, z, given):
        return nets["G"](given["y"]).unflatten(1, (1, 16, 16)).tanh()


@dataclass(frozen=True, kw_only=True)
class Darker(ByClass):
    """As before, and it reconstructs at half the contrast."""

    name = "darker"

    def reconstruct(self, nets, x):
        return x / 2


@dataclass(frozen=True, kw_only=True)
class Sounds(Recipe):
    """Samples that are neither pictures nor points."""

    name = "sounds"
    latent_dim: int = 2

    def networks(self, data):
        return {"G": nn.Linear(2, 20)}

    def sample(self, nets, z, given):
        return nets["G"](z)[:, None]


@dataclass(frozen=True, kw_only=True)
class Captions(Recipe):
    """Is given what no command can make."""

    name = "captions"
    columns = {"x": Images(), "t": Tokens()}
    given = {"t": Tokens()}

    def networks(self, data):
        return {"G": nn.Embedding(9, 256)}

    def sample(self, nets, z, given):
        return nets["G"](given["t"][:, 0]).unflatten(1, (1, 16, 16))


class Halves(nn.Module):
    """z [B, 4] → images whose left half is bright where z_0 is high, and whose right half is where z_1 is."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, z):
        halves = (self.gain * z[:, :2]).tanh().repeat_interleave(8, 1)
        return halves[:, None, None].expand(-1, 1, 16, -1)


@dataclass(frozen=True, kw_only=True)
class Bright(Recipe):
    name = "bright"
    latent_dim: int = 4

    def networks(self, data):
        return {"G": Halves()}


OTHERS = {recipe.name: recipe for recipe in (Styles, Doubled, ByClass, Darker, Sounds, Captions, Bright)}


def install(monkeypatch) -> None:
    """Make the recipes of this file known."""
    for name, recipe in OTHERS.items():
        monkeypatch.setitem(RECIPES, name, recipe)


def of_attributes(recipe: str = "stargan") -> str:
    names = ("hair=black", "hair=red", "beard")
    return saved(RECIPES[recipe](width=2, blocks=1), y=Spec("attributes", (3,), names))
