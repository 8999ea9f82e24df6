"""Every recipe in small, with data for it, and steps of it: what the tests of the engine share."""

import dataclasses

import torch
from torch import nn

from ganfast.data import Dataset, Images, Loader, Sampler, match
from ganfast.recipes import RECIPES, Player, Recipe
from ganfast.recipes.base import batches_per_step
from ganfast.recipes.remedies import Remedies
from ganfast.training.precision import Precision
from ganfast.training.running_means import RunningMeans
from ganfast.training.state import RunState
from ganfast.training.step import Step

CPU = torch.device("cpu")

# those that the engine had before it had players, and the four that it was made for
FIVE = {
    "dcgan": RECIPES["dcgan"](width=4, latent_dim=6),
    "gan": RECIPES["gan"](width=8),
    "wgan": RECIPES["wgan"](width=4, latent_dim=6, d_steps=2),
    "wgan-gp": RECIPES["wgan-gp"](width=4, latent_dim=6, d_steps=2),
    "wgan-gp resnet": RECIPES["wgan-gp"](width=4, latent_dim=6, d_steps=1, architecture="resnet"),
    "r3gan": RECIPES["r3gan"](width=4, latent_dim=6),
}
FOUR = {
    "cgan": RECIPES["cgan"](width=4, latent_dim=6),
    "infogan": RECIPES["infogan"](width=4, latent_dim=6, categories=3, codes=2),
    "began": RECIPES["began"](width=4, latent_dim=6, gain=0.1),
    "cyclegan": RECIPES["cyclegan"](width=4, blocks=1, layers=2, pool=14),
}
SMALL = {"width": 4, "latent_dim": 6}
CLASSICS = {name: RECIPES[name](**SMALL) for name in ("lsgan", "hinge", "f-gan", "ns-gp", "dragan", "pacgan", "ebgan")}
WITHOUT_DRAWS = Remedies(
    spectral_norm=True, minibatch="discrimination", virtual_batch_norm=3, feature_matching=True,
    historical_averaging=0.01, clip_gradients=0.5, lr_d=1e-3,
)  # fmt: skip
WITH_DRAWS = dataclasses.replace(WITHOUT_DRAWS, augment="color,translation,cutout", instance_noise=0.1)
REMEDIED = {
    "remedied": RECIPES["dcgan"](**SMALL, remedies=WITHOUT_DRAWS),
    "augmented": RECIPES["dcgan"](**SMALL, remedies=WITH_DRAWS),
}
BOOSTED = RECIPES["adagan"](**SMALL).stages(30)  # M between the generators
EQUILIBRIA = {
    "unrolled": RECIPES["unrolled"](**SMALL, unroll=2),
    "adagan": BOOSTED[2].game,
    "adagan judge": BOOSTED[3].game,
    "chekhov": RECIPES["chekhov"](**SMALL, states=2, spacing=1, growth=1),
}
AUGMENTED = {
    "infogan augmented": RECIPES["infogan"](
        **SMALL, categories=3, architecture="dcgan", remedies=Remedies(augment="translation,cutout")
    ),
}
CODES = {
    "bigan": RECIPES["bigan"](**SMALL),
    "ali": RECIPES["ali"](**SMALL, architecture="dcgan"),
}
STEPWISE = {
    "gran": RECIPES["gran"](**SMALL, timesteps=2),
    "lapgan": RECIPES["lapgan"](**SMALL, detail=2),
    "cogan": RECIPES["cogan"](**SMALL),
    "dvbpr": RECIPES["dvbpr"](**SMALL, factors=3),
}
UNPAIRED = {
    "cut": RECIPES["cut"](width=4, blocks=2, layers=2, units=16, places=20),
    "fastcut": RECIPES["fastcut"](width=4, blocks=3, layers=2, units=16, places=20, antialias=True),
}
AUTOENCODERS = {
    "aae": RECIPES["aae"](**SMALL),
    "aae supervised": RECIPES["aae"](width=4, prior="mixture", supervised=True, modes=5, architecture="dcgan"),
    "vae": RECIPES["vae"](**SMALL, architecture="dcgan"),
    "vae gaussian": RECIPES["vae"](**SMALL, likelihood="gaussian", architecture="dcgan"),
    "vae-gan": RECIPES["vae-gan"](**SMALL),
}
SEMI = {
    "sgan": RECIPES["sgan"](**SMALL),
    "sgan resnet": RECIPES["sgan"](**SMALL, architecture="resnet", remedies=Remedies()),
    "catgan": RECIPES["catgan"](**SMALL, categories=3),
    "catgan labels": RECIPES["catgan"](**SMALL, semi_supervised=True, architecture="dcgan"),
}
CONDITIONAL = {
    "cgan projection": RECIPES["cgan"](**SMALL, conditioning="projection"),
    "cgan aux": RECIPES["cgan"](**SMALL, conditioning="aux", architecture="resnet"),
    "cgan mlp": RECIPES["cgan"](**SMALL, architecture="mlp"),
    "acgan": RECIPES["acgan"](**SMALL),
}
PAIRED = {
    "pix2pix": RECIPES["pix2pix"](width=4, layers=2),
    "pix2pix instance": RECIPES["pix2pix"](width=4, layers=1, norm="instance", direction="ba", dropout=0.0),
    "galaxy": RECIPES["galaxy"](width=4, layers=1),
    "inpaint": RECIPES["inpaint"](width=4, code=6, holes="random"),
}
ATTRIBUTES = {
    "stargan": RECIPES["stargan"](width=4, blocks=1, d_steps=2),
    "ganimation": RECIPES["ganimation"](width=4, blocks=1, d_steps=2),
}
SUPER = {
    "srgan": RECIPES["srgan"](width=4, blocks=1, scale=2),
    "srgan alone": RECIPES["srgan"](width=4, blocks=2, residual=True).stages(10)[0].game,
    "spade": RECIPES["spade"](width=2, noise=3, layers=1),
    "spade maps": RECIPES["spade"](width=2, noise=0, layers=2, scales=1),
}
GAMES = FIVE | FOUR | CLASSICS | REMEDIED | EQUILIBRIA
GAMES |= AUGMENTED | CODES | STEPWISE | AUTOENCODERS | SEMI | CONDITIONAL | PAIRED | UNPAIRED | ATTRIBUTES | SUPER


def images(count=40, size=16, channels=1, seed=0) -> Dataset:
    """Noise; labels of five classes, attributes −1, 0 or 1; targets are negatives of neighbours, maps quarters."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, size, size, channels), dtype=torch.uint8, generator=random)
    chosen = torch.randint(-1, 2, (count, 4), generator=random).float()
    targets = 255 - pixels.roll(1, 2)
    maps = pixels[..., :1] // 64
    labels = torch.arange(count) % 5
    return Dataset("noise", images=pixels, targets=targets, maps=maps, labels=labels, attributes=chosen)


def points(count=50) -> Dataset:
    return Dataset("points", points=torch.randn(count, 2, generator=torch.Generator().manual_seed(0)).float())


def sources_of(recipe: Recipe) -> list[Dataset]:
    """Data sets that fit ``recipe``."""
    count = 1 + max(column.source for column in recipe.columns.values())
    if getattr(recipe, "architecture", "") == "mlp" and recipe.columns["x"].column == "samples":
        return [points()]
    return [images(seed=k) for k in range(count)]


class Counting(Recipe):
    """Players of every kind; ``seen`` has who moved, on what."""

    name = "counting"
    columns = {"x": Images()}
    latent_dim = 3
    seen: list = []

    def networks(self, data):
        torch.manual_seed(0)
        linear = lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 1))  # noqa: E731
        return {"G": nn.Linear(3, 256), "D": linear(), "Q": linear(), "fixed": linear()}

    def state(self, data):
        return {"moved": 0.0, "total": torch.zeros(2, dtype=torch.int64)}

    def players(self):
        return [
            Player(("D",), self.critic, times=3, after=self.count),
            Player(("D",), self.penalty, every=4, name="penalty"),
            Player(("G", "Q"), self.generator, times=2, optimizer=self.adam(1e-2)),
            Player(("D", "Q"), self.both, name="both"),
            Player(("D",), None, after=self.clip, every=2),
        ]

    def critic(self, t):
        t.fake = t.G(t.normal(3)).view(-1, 1, 16, 16)
        self.seen.append(("critic", t.x))
        return t.D(t.fake.detach()).mean() - t.D(t.x).mean()

    def penalty(self, t):
        self.seen.append(("penalty", t.x))
        t.log(size=sum(p.square().sum() for p in t.D.parameters()))
        return 0.1 * t.D(t.x).square().mean()

    def generator(self, t):
        self.seen.append(("generator", t.x))
        fake = t.fake if len(self.seen) and self.seen[-2][0] != "generator" else t.G(t.normal(3)).view(-1, 1, 16, 16)
        return -t.D(fake).mean() + t.Q(fake).square().mean() + t.fixed(fake).mean()

    def both(self, t):
        self.seen.append(("both", t.x))
        return (t.D(t.x) - t.Q(t.x)).square().mean()

    def count(self, t):
        t.state.moved += 1
        t.state.total = torch.ones_like(t.state.total) + t.state.total

    def clip(self, t):
        self.seen.append(("clip", t.x))
        for parameter in t.D.parameters():
            parameter.clamp_(-0.05, 0.05)


class WideLoader(Loader):
    def batch(self, k):
        return {n: v.double() if v.is_floating_point() else v for n, v in super().batch(k).items()}


def make(
    recipe, sources=None, batch=6, precision="fp32", device=CPU, share=(0, 1), double=False, place=None, flip=False,
    resident=2**30, deterministic=False, **options,
) -> Step:  # fmt: skip
    """A step over small networks, the same for the same arguments; its batches are not loaded yet."""
    sources = sources or sources_of(recipe)
    torch.manual_seed(1)
    kind = WideLoader if double else Loader
    loaders = [
        kind(Sampler(data, batch, 3 + k, flip), batches_per_step(recipe.players()), device, resident, share,
             dict.fromkeys(data.column_of(c) for c in recipe.columns.values() if c.source == k))
        for k, data in enumerate(sources)
    ]  # fmt: skip
    layout = place or (lambda network: network.double() if double else network)
    state = RunState(loaders, Precision(precision, device, deterministic), seed=7, place=layout)
    if double:
        state.means = RunningMeans(device, torch.float64)
    state.begin(recipe, match(recipe.name, recipe.columns, sources))
    return Step(state, **options)


def load(step: Step) -> None:
    for loader in step.state.loaders:
        loader.load()


def means(step: Step) -> dict[str, float]:
    """The figures since the last call."""
    found = step.state.means.read().means()
    step.state.means.zero()
    return found


def play(step: Step, count: int) -> list[dict[str, float]]:
    """The figures of each of ``count`` steps."""
    rows = []
    for _ in range(count):
        load(step)
        step()
        step.state.step += 1
        rows.append(means(step))
    return rows


def table(rows: list[dict[str, float]]) -> torch.Tensor:
    """[steps, figures], fp64."""
    return torch.tensor([list(row.values()) for row in rows], dtype=torch.float64)
