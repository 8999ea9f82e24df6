"""A trained recipe as one module that samples, and as one safetensors file. Loading runs no code of the file's."""

import dataclasses
import functools
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from ganfast.data.columns import Spec
from ganfast.errors import InputError
from ganfast.recipes.base import Recipe, can, spec_of

FORMAT = "ganfast-generator-2"
FILE = "generator.safetensors"
DTYPES = {"labels": torch.int64, "maps": torch.int64, "tokens": torch.int64}


class Trained(nn.Module):
    """What ``recipe.sample`` needs: ``trained(z, y)`` is samples; ``arguments`` and ``inspect.signature`` say of what.

    Args:
        recipe: the game; ``specs`` are those of its columns in the data.
        networks: those of ``recipe.averaged``, by name.
        origin: recipe, steps and stage to build it from again: the run's recipe where ``recipe`` is one of its stages.

    z is fp32 [B, latent_dim] ~ N(0, 1); labels int64 [B] and maps int64 [B, H, W] in 0 … K−1; images fp32 [B, C, H, W]
    in [−1, 1].
    """

    def __new__(cls, recipe: Recipe | None = None, *_, **__):
        return super().__new__(_with_signature(_names(recipe)) if cls is Trained else cls)

    def __init__(
        self,
        recipe: Recipe,
        specs: Mapping[str, Spec],
        networks: Mapping[str, nn.Module],
        origin: tuple[Recipe, int, int] | None = None,
    ):
        super().__init__()
        self.recipe, self.specs, self.origin = recipe, dict(specs), origin or (recipe, 1, 0)
        self.networks = nn.ModuleDict(networks)
        self.given = {name: spec_of(recipe, name, specs) for name in recipe.given}
        self.latent_dim = recipe.latent_dim
        self.arguments = _names(recipe)
        self.about: dict[str, str] = {}

    def sample(self, **tensors: Tensor) -> Tensor:
        """Samples from tensors by the name of the argument; ``InputError`` where one does not fit."""
        for name, tensor in tensors.items():
            shape = (self.latent_dim,) if name == "z" else self.given[name].shape
            dtype = torch.float32 if name == "z" else DTYPES.get(self.given[name].kind, torch.float32)
            axes, sides = self.axes(name), self.recipe.sides
            fits = tensor.ndim == 1 + len(shape) and all(
                have % sides == 0 if axis in axes else have == side
                for axis, (have, side) in enumerate(zip(tensor.shape[1:], shape), 1)
            )
            if not fits or tensor.dtype.is_floating_point != dtype.is_floating_point:
                needed = ", ".join(["B", *(axes.get(axis, str(side)) for axis, side in enumerate(shape, 1))])
                multiples = f", both sides multiples of {sides}" if len(axes) > 1 else ""
                raise InputError(
                    f"{name}: got {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}, needs "
                    f"{str(dtype).removeprefix('torch.')} [{needed}]{multiples}."
                )
        return self.recipe.sample(self.networks, tensors.pop("z", None), tensors)

    def axes(self, name: str) -> dict[int, str]:
        """The axes of an argument that may be of any length: the batch, and sides of images if the recipe says so."""
        any_size = self.recipe.sides and name != "z" and self.given[name].kind == "images"
        return {0: "batch", **({2: "height", 3: "width"} if any_size else {})}

    def can(self, ability: str) -> bool:
        """Whether "reconstruct", "strip" … works, a method of that name."""
        return can(self.recipe, *(("reconstruct", "encode") if ability == "reconstruct" else (ability,)))

    def reconstruct(self, x: Tensor) -> Tensor:
        """What the networks make of samples x [B, ...]; NotImplementedError for recipes that cannot."""
        return self.recipe.reconstruct(self.networks, x)

    def encode(self, x: Tensor) -> Tensor:
        """Codes [B, n] of samples x, for ``decode``; NotImplementedError for recipes that cannot."""
        return self.recipe.encode(self.networks, x)

    def decode(self, code: Tensor) -> Tensor:
        """Samples of codes [B, n], or of latents z where the recipe has no encoder."""
        return self.recipe.decode(self.networks, code)

    def classify(self, x: Tensor) -> Tensor:
        """Logits [B, K] of samples x; NotImplementedError for recipes that cannot."""
        return self.recipe.classify(self.networks, x)

    def attributes(self, x: Tensor) -> Tensor:
        """Attributes [B, A] of samples x; NotImplementedError for recipes that find none."""
        return self.recipe.attributes(self.networks, x)

    def bound(self, x: Tensor) -> Tensor:
        """Lower bounds [B] on log p(x), in nats; NotImplementedError for recipes that cannot."""
        return self.recipe.bound(self.networks, x)

    def strip(self, z: Tensor | None = None, **given: Tensor) -> Tensor:
        """[T, B, C, H, W]: the steps to samples, or all that a z gives; NotImplementedError for other recipes."""
        return self.recipe.strip(self.networks, z, given)

    def pairs(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (a, b) that belong together; NotImplementedError for recipes that make no pairs."""
        return self.recipe.pairs(self.networks, z)

    def prefer(self, x: Tensor) -> Tensor:
        """Scores [B, K] of samples x by K users; NotImplementedError for recipes that know none."""
        return self.recipe.prefer(self.networks, x)

    def realism(self, x: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """Numbers [B] ≤ 0 of samples x; NotImplementedError for recipes without a discriminator after training."""
        return self.recipe.realism(self.networks, x, given)

    def example(self, batch: int, seed: int = 0, larger: int = 0) -> dict[str, Tensor]:
        """Arguments of ``batch`` rows, drawn on the CPU; images that may be of any size are ``larger`` steps larger."""
        random = torch.Generator().manual_seed(seed)
        found = {}
        for name in self.arguments:
            spec = None if name == "z" else self.given[name]
            if spec is None:
                found[name] = torch.randn(batch, self.latent_dim, generator=random)
            elif spec.kind in ("labels", "maps"):
                found[name] = torch.randint(max(spec.classes, 1), (batch, *spec.shape), generator=random)
            elif spec.kind == "tokens":
                found[name] = torch.zeros(batch, *spec.shape, dtype=torch.int64)
            else:
                step = larger * self.recipe.sides
                shape = [side + step * (axis in self.axes(name)) for axis, side in enumerate(spec.shape, 1)]
                found[name] = torch.rand(batch, *shape, generator=random) * 2 - 1
        return found

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def _names(recipe: Recipe) -> tuple[str, ...]:
    return (*(("z",) if recipe.latent_dim else ()), *recipe.given)


@functools.cache
def _with_signature(names: tuple[str, ...]) -> type[Trained]:
    """Trained with a ``forward`` of these arguments."""
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, positional, annotation=Tensor) for name in ("self", *names)]
    parameters[0] = parameters[0].replace(annotation=inspect.Parameter.empty)
    signature = inspect.Signature(parameters, return_annotation=Tensor)

    def forward(*args, **kwargs):
        self, *tensors = signature.bind(*args, **kwargs).args
        return self.sample(**dict(zip(names, tensors)))

    forward.__signature__ = signature
    return type("Trained", (Trained,), {"forward": forward, "__doc__": Trained.__doc__, "__module__": __name__})


# -- the file ----------------------------------------------------------------------------------------------------------


def describe(trained: Trained) -> dict[str, str]:
    """What a file says of how to build ``trained``."""
    recipe, steps, stage = trained.origin
    built = {
        "fields": recipe.options(),
        "columns": {name: spec.to_json() for name, spec in trained.specs.items()},
        "steps": steps,
        "stage": stage,
    }
    return {"format": FORMAT, "recipe": recipe.name, "built": json.dumps(built)}


def save(trained: Trained, path: str | os.PathLike, **about: str) -> None:
    """Write ``trained`` to ``path`` with what it is built from and whatever ``about`` says of its origin."""
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in trained.networks.items()
        for key, value in network.state_dict().items()
    }
    Path(path).write_bytes(serialise(tensors, {**about, **describe(trained)}))


def load(
    path: str | os.PathLike,
    device: str | torch.device = "cpu",
    direction: str | None = None,
    domain: str | None = None,
) -> Trained:
    """The trained recipe at ``path`` in evaluation mode: a module that samples; its ``forward`` has the arguments.

    ``path`` is a ``generator.safetensors``, or a run directory or checkpoint that holds one. The file is read as
    numbers and JSON, never unpickled. Raises ``InputError`` where it is missing, damaged, of another kind or of a
    recipe that is not installed; its ``about`` attribute is the file's metadata. Where a recipe has learned
    more than it shows, ``direction`` "ab" or "ba" chooses the translation (CycleGAN), ``domain`` "a" or "b" the set
    (CoGAN).
    """
    from ganfast.recipes import RECIPES

    file = find(Path(path))
    try:
        with safe_open(file, framework="pt") as archive:
            metadata = archive.metadata() or {}
            tensors = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged or not a safetensors file ({error}): give another file.") from None
    if metadata.get("format") != FORMAT:
        raise InputError(f"{file} holds no generator of this version of ganfast: give a run directory or its {FILE}.")
    name = metadata.get("recipe")
    if name not in RECIPES:
        raise InputError(f"{file} is of recipe {name}, which is not installed: install the package that has it.")
    try:
        trained = build(RECIPES[name], json.loads(metadata["built"]))
        trained.networks.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file} does not fit the recipe that it names ({reason}): give another file.") from None
    for option, word in (("direction", direction), ("domain", domain)):
        if word is None:
            continue
        if option not in {field.name for field in dataclasses.fields(trained.recipe)} & {*trained.recipe.choices}:
            raise InputError(f"--{option} {word}: recipe {name} has no {option}s: leave it out.")
        game = dataclasses.replace(trained.recipe, **{option: word})
        trained = Trained(game, trained.specs, dict(trained.networks), trained.origin)
    trained.about = metadata
    return trained.to(device).eval()


def build(recipe_class: type[Recipe], built: dict) -> Trained:
    """A Trained with the weights that its networks begin with, from what :func:`describe` wrote."""
    recipe = recipe_class.from_options(built["fields"])
    steps, stage = int(built["steps"]), int(built["stage"])
    game = recipe.stages(steps)[stage].game
    specs = {name: Spec.from_json(spec) for name, spec in built["columns"].items()}
    with torch.random.fork_rng(devices=[]):
        networks = game.build(specs)
    return Trained(game, specs, {each: networks[each] for each in game.averaged}, (recipe, steps, stage))


def find(path: Path) -> Path:
    """The file for what a person points at."""
    if path.is_dir():
        if (path / FILE).is_file():
            return path / FILE
        raise InputError(f"{path} holds no {FILE}: give a run directory that has saved one.")
    if not path.is_file():
        raise InputError(f"{path} is not there: give a {FILE} or a run directory (--network).")
    return path
