"""What a recipe says of a GAN: its data, its networks, its players and their losses, and how it samples."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ganfast.data.columns import Column, Images, Spec
from ganfast.errors import InputError, check_choices
from ganfast.nn import mixes_samples
from ganfast.recipes.adam import Adam
from ganfast.recipes.remedies import OF_JUDGES, Remedies

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Player:
    """One side of the game: the networks that it trains, and the loss that it minimises.

    Args:
        trains: the names of its networks; all others are frozen while it moves.
        loss: a function of the turn ``t`` that returns a scalar; None: the player only does what ``after`` says.
        optimizer: makes an optimiser of a list of parameters; the recipe's ``adam()`` by default. Players that train
            the same networks share the optimiser of the first of them.
        times: updates a step, each on a fresh batch; a later player sees the last one.
        every: the player moves at every how many steps (lazy regularisation).
        after: is called with the turn after each update, without gradients (clip weights, move a state).
        own_gradients: the loss has filled ``.grad`` itself, of ``t.scale`` times the loss, as ``wgan_gp_step`` does.
        keeps: networks of later players whose graph the last update keeps, so that they can use what it leaves, such
            as ``t.fake``; by default all that later players train.
        name: of its figures ``loss_<name>`` and ``grad_norm_<name>``; by default that of its networks, in lower case.
    """

    trains: tuple[str, ...]
    loss: Callable[..., Tensor] | None
    optimizer: MakeOptimizer | None = None
    times: int = 1
    every: int = 1
    after: Callable[..., None] | None = None
    own_gradients: bool = False
    keeps: tuple[str, ...] | None = None
    name: str = ""

    def __post_init__(self):
        object.__setattr__(self, "trains", tuple(self.trains))
        object.__setattr__(self, "name", self.name or "_".join(self.trains).lower().replace("-", "_"))
        for what in ("times", "every"):
            if getattr(self, what) < 1:
                raise InputError(f"player {self.name}: {what} must be at least 1, got {getattr(self, what)}.")


@dataclass(frozen=True)
class Stage:
    """A part of a run: a game that is played for ``steps`` steps."""

    steps: int
    game: "Recipe"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method: networks for a data set, the players that train them, and what is sampled. Its fields are its options.

    A recipe only describes. Losses get the turn ``t``: networks (``t.G``), columns (``t.x``), random numbers
    (``t.normal``), state (``t.state``), what earlier players left (``t.fake``) and ``t.log``; see ``training/turn.py``.
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, Column]] = {"x": Images()}
    """the columns of the data, by the name that the turn gives them"""
    averaged: ClassVar[tuple[str, ...]] = ("G",)
    """the networks that ``sample`` needs: exponential moving averages of them are shown, saved and exported"""
    given: ClassVar[Mapping[str, Column | Spec | Callable[[Mapping[str, Spec]], Spec]]] = {}
    """what ``sample`` needs besides z: a column of the data (y: Labels()), or a Spec of the recipe's own (codes), which
    may depend on those of the data"""
    answer: ClassVar[str] = ""
    """the column that ``sample`` should give where images are given: the true ones are compared with it"""
    sides: ClassVar[int] = 0
    """of what the sides of a given image are multiples, where it may be of any size; 0: it has the size of the data"""
    between: ClassVar[bool] = False
    """whether attributes between those of two images mean what lies between: steps from one to the other are shown"""
    telling: ClassVar[tuple[str, ...]] = ()
    """the figures that the progress bar shows beside the losses"""
    lr_decay: ClassVar[str] = "none"
    """the default of --lr-decay"""
    batch: ClassVar[int] = 64
    """the default of --batch"""
    latent_dim: ClassVar[int] = 0
    """numbers in a latent vector z; 0 where nothing is drawn"""
    judges: ClassVar[tuple[str, ...]] = ()
    """the networks whose first argument is samples and whose result is scores: what remedies change"""

    choices: ClassVar[tuple[str, ...]] = ("direction", "domain")
    """the options of which a trained recipe has learned every value, so that ``load`` may set them anew"""

    lr: float = 2e-4
    """Adam's learning rate"""
    beta1: float = 0.5
    """Adam's decay rate of the first moment"""
    beta2: float = 0.999
    """Adam's decay rate of the second moment"""
    remedies: Remedies = Remedies()

    def __post_init__(self):
        check_choices(self)
        self.check_remedies()
        for name in ("d_steps", "latent_dim", "width"):  # where a recipe has them
            self.require(vars(self).get(name, 1) >= 1, name, "be at least 1")
        self.require(self.lr > 0, "lr", "be above 0")
        self.require(0 <= self.beta1 < 1, "beta1", "lie in [0, 1)")
        self.require(0 <= self.beta2 < 1, "beta2", "lie in [0, 1)")

    def require(self, holds: bool, name: str, what: str) -> None:
        """``InputError`` that names an option where a condition on it does not hold."""
        if not holds:
            raise InputError(f"{name} must {what}, got {getattr(self, name)} (--{name.replace('_', '-')}).")

    def check_remedies(self) -> None:
        """``InputError`` for those that do nothing here."""
        if not self.judges:
            self.refuse_remedies("has no discriminator of samples alone", *OF_JUDGES)
        if self.given or not self.latent_dim or "G" not in self.averaged:
            self.refuse_remedies("has no generator of latents alone", "virtual_batch_norm")
        if not getattr(self, "match_features", None):
            self.refuse_remedies("does not match features", "feature_matching")

    def refuse_remedies(self, why: str, *names: str) -> None:
        for name in self.remedies.given(*names):
            raise InputError(f"recipe {self.name} {why}: leave out --{name.replace('_', '-')}.")

    def options(self) -> dict:
        """All fields and those of the remedies by name, as files have them; ``from_options`` is the way back."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "remedies"}
        return own | dataclasses.asdict(self.remedies)

    @classmethod
    def from_options(cls, options: Mapping) -> "Recipe":
        """TypeError for a name that it does not have."""
        names = {field.name for field in dataclasses.fields(Remedies)}
        remedies = Remedies(**{name: value for name, value in options.items() if name in names})
        return cls(**{name: value for name, value in options.items() if name not in names}, remedies=remedies)

    def build(self, data: Mapping[str, Spec]) -> dict[str, nn.Module]:
        """The networks with what remedies change in them."""
        networks = self.networks(data)
        first = next(iter(data.values()))
        if self.remedies.augment and len(first.shape) != 3:
            raise InputError(f"--augment changes images, and the data is {first.kind}: leave it out.")
        self.remedies.built_in(networks, self.judges, self.latent_dim)
        return networks

    # -- what a recipe says ------------------------------------------------------------------------------------------

    def networks(self, data: Mapping[str, Spec]) -> dict[str, nn.Module]:
        """The networks by name; ``data["x"].shape`` is one sample's shape, ``data["y"].classes`` how many there are."""
        raise NotImplementedError(f"{type(self).__name__} names no networks")

    def players(self) -> list[Player]:
        """Who moves, in this order, at each step."""
        raise NotImplementedError(f"{type(self).__name__} has no players")

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Load published weights, in place, into networks that a run begins with; a trained recipe needs none."""

    def state(self, data: Mapping[str, Spec]) -> dict[str, Tensor | float]:
        """Numbers that last from step to step and are saved, by the name that ``t.state`` gives them."""
        return {}

    def sample(self, nets: Mapping[str, nn.Module], z: Tensor | None, given: Mapping[str, Tensor]) -> Tensor:
        """Samples from latents z [B, latent_dim] and what is ``given``, by the averaged networks in evaluation mode."""
        return nets["G"](z)

    def question(self, columns: Mapping[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        """What ``sample`` is given for rows of the data whose answer is known; ``random`` draws masks, blurs, noise.

        What else ``trivial`` needs may be there, too.
        """
        return {name: columns[name] for name in self.given}

    def trivial(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Simple answers by name, to be compared with: the given image itself."""
        return {"input": next(given[name] for name in self.given if given[name].ndim == 4)}

    # what some can do besides, by the averaged networks in evaluation mode; one that is not overridden raises

    def reconstruct(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """What an autoencoder, or an encoder and the generator, make of samples x."""
        return self.decode(nets, self.encode(nets, x))

    def encode(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """Codes [B, n] of samples x: what ``decode`` takes, and what represents them."""
        raise NotImplementedError(f"{type(self).__name__} does not encode")

    def code_of(self, z: Tensor) -> Tensor:
        """Codes [B, n] that latents z [B, latent_dim] ~ N(0, 1) stand for: the prior, where ``encode`` should lead."""
        return z

    def decode(self, nets: Mapping[str, nn.Module], code: Tensor) -> Tensor:
        """Samples of codes [B, n]; of z itself where ``sample`` does no more."""
        return self.sample(nets, code, {})

    def classify(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """Logits [B, K] of samples x: of the data's classes, or of categories that the recipe has found itself."""
        raise NotImplementedError(f"{type(self).__name__} does not classify")

    def attributes(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """Attributes [B, A] that the networks find in samples x, in the numbers of the data."""
        raise NotImplementedError(f"{type(self).__name__} finds no attributes")

    def bound(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """A lower bound [B] on log p(x) in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no likelihood")

    def strip(self, nets: Mapping[str, nn.Module], z: Tensor | None, given: Mapping[str, Tensor]) -> Tensor:
        """[T, B, C, H, W]: how samples come to be, step by step, or all images that one z gives."""
        raise NotImplementedError(f"{type(self).__name__} makes its samples at once")

    def pairs(self, nets: Mapping[str, nn.Module], z: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (a, b) of the columns a and b that belong together."""
        raise NotImplementedError(f"{type(self).__name__} makes no pairs")

    def prefer(self, nets: Mapping[str, nn.Module], x: Tensor) -> Tensor:
        """Scores [B, K]: how much each of K users likes samples x."""
        raise NotImplementedError(f"{type(self).__name__} knows no users")

    def distances(self, images: Tensor, columns: Mapping[str, Tensor]) -> dict[str, float]:
        """What the recipe's own losses say of images, beside a batch of the data, by name."""
        raise NotImplementedError(f"{type(self).__name__} measures no distances")

    def realism(self, nets: Mapping[str, nn.Module], x: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """Numbers [B], 0 at most: how real the discriminator finds samples x of what was given."""
        raise NotImplementedError(f"{type(self).__name__} has no discriminator after training")

    def stages(self, steps: int) -> list[Stage]:
        """The games of a run of ``steps`` steps, one after the other; networks carry over by name."""
        return [Stage(steps, self)]

    # -- for recipes -------------------------------------------------------------------------------------------------

    def adam(self, lr: float | None = None) -> MakeOptimizer:
        """Adam with the recipe's rates."""
        return functools.partial(Adam, lr=lr or self.lr, betas=(self.beta1, self.beta2), fused=True)


def can(recipe: Recipe, *abilities: str) -> bool:
    """Whether it overrides one of these methods of Recipe, such as "encode"."""
    return any(getattr(type(recipe), name) is not getattr(Recipe, name) for name in abilities)


def one_shape(data: Mapping[str, Spec], a: str = "a", b: str = "b") -> tuple[int, ...]:
    """The shape of the images ``a`` and ``b``; ``InputError`` where they differ."""
    if data[a].shape != data[b].shape:
        raise InputError(
            f"both sets need one shape, got {data[a].shape} and {data[b].shape}: give --size and --channels."
        )
    return data[a].shape


def batches_per_step(players: list[Player]) -> int:
    """How many batches a step sees: each further update of a player has a fresh one."""
    return 1 + sum(player.times - 1 for player in players)


def share(yes):
    """The share of a batch of which it is true: a figure for ``t.log``."""
    return yes.mean(dtype=torch.float32)


def scores(discriminator: nn.Module, real: Tensor, fake: Tensor, merge: bool = False) -> tuple[Tensor, Tensor]:
    """D(real) and D(fake), in one pass where that is the same, or with ``merge``: layers that mix then see both."""
    if merge or not mixes_samples(discriminator):
        return discriminator(torch.cat([real, fake])).chunk(2)
    return discriminator(real), discriminator(fake)


def spec_of(recipe: Recipe, name: str, specs: Mapping[str, Spec]) -> Spec:
    """The Spec of what sampling is given under ``name``."""
    wanted = recipe.given[name]
    if isinstance(wanted, Column):
        return specs[name]
    return wanted if isinstance(wanted, Spec) else wanted(specs)
