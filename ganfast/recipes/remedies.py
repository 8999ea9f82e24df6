"""Remedies for an unstable game, switches of every recipe where they make sense. What is off costs nothing."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from ganfast import nn as gnn
from ganfast.errors import InputError, check_choices

OF_JUDGES = ("augment", "instance_noise", "spectral_norm", "minibatch", "lr_d")  # what changes networks that score


@dataclass(frozen=True, kw_only=True)
class Remedies:
    """What is known to help a game that does not settle; mostly of Salimans et al. 2016 (arXiv:1606.03498)."""

    augment: str = ""
    """DiffAugment of all that the discriminator sees: color,translation,cutout or some of them (Zhao et al. 2020)"""
    instance_noise: float = 0.0
    """standard deviation of noise on all that the discriminator sees, falling to 0 (Sønderby et al. 2017)"""
    noise_steps: int = 10_000
    """steps over which the instance noise falls to 0"""
    spectral_norm: bool = False
    """divide the discriminator's weights by their largest singular values (Miyato et al. 2018)"""
    minibatch: Literal["none", "discrimination", "stddev"] = "none"
    """statistics of the batch that the discriminator's last layer sees (Salimans et al. 2016, Karras et al. 2018)"""
    virtual_batch_norm: int = 0
    """the generator normalises by this many fixed latents instead of the batch (Salimans et al. 2016)"""
    feature_matching: bool = False
    """the generator matches the mean of the discriminator's features instead of its scores (Salimans et al. 2016)"""
    historical_averaging: float = 0.0
    """weight λ of λ·‖θ − mean of all θ before‖² in every player's loss (Salimans et al. 2016)"""
    clip_gradients: float = 0.0
    """largest norm of a player's gradient; 0: any"""
    lr_d: float | None = None
    """learning rate of the discriminator alone: two time scales (Heusel et al. 2017)"""

    def __post_init__(self):
        check_choices(self)
        for name in ("instance_noise", "virtual_batch_norm", "historical_averaging", "clip_gradients"):
            self.require(getattr(self, name) >= 0, name, "be 0 or more")
        self.require(self.noise_steps >= 1, "noise_steps", "be at least 1")
        self.require(self.lr_d is None or self.lr_d > 0, "lr_d", "be above 0")
        if self.augment:
            with explained("augment"):
                gnn.Augment(self.augment)

    def require(self, holds: bool, name: str, what: str) -> None:
        if not holds:
            raise InputError(f"{name} must {what}, got {getattr(self, name)} (--{name.replace('_', '-')}).")

    def given(self, *names: str) -> list[str]:
        """Which of ``names`` are switched on."""
        defaults = {field.name: field.default for field in fields(self)}
        return [name for name in names if getattr(self, name) != defaults[name]]

    def built_in(self, networks: dict[str, nn.Module], judges: tuple[str, ...], latent_dim: int) -> None:
        """Change the ``networks`` as they say, in place: layers of ``judges``, the normalisation of G."""
        for name in judges:
            if self.spectral_norm:
                gnn.spectral_norm(networks[name])
            if self.minibatch != "none":
                with explained("minibatch"):
                    gnn.with_minibatch_features(networks[name], self.minibatch)
            if self.feature_matching:
                with explained("feature_matching"):
                    gnn.keep_features(networks[name])
        if self.virtual_batch_norm:
            with explained("virtual_batch_norm"):
                gnn.virtual_batch_norm(networks["G"], torch.randn(self.virtual_batch_norm, latent_dim))

    def attached_to(self, networks: Mapping[str, nn.Module], judges: tuple[str, ...], steps: Tensor) -> None:
        """Have ``judges`` see their first argument changed; ``steps`` counts those of the run, on the device."""
        for name in judges:
            if self.augment:
                before(networks[name], gnn.Augment(self.augment))
            if self.instance_noise:
                before(networks[name], Fading(gnn.InstanceNoise(self.instance_noise), steps, self.noise_steps))


@contextlib.contextmanager
def explained(name: str):
    """What a layer says that cannot be made, as a sentence on the option."""
    try:
        yield
    except ValueError as error:
        raise InputError(
            f"--{name.replace('_', '-')} cannot be had here ({error}): give another value or leave it out."
        ) from None


class Fading:
    """Noise that falls to 0 over ``last`` steps."""

    def __init__(self, noise: gnn.InstanceNoise, steps: Tensor, last: int):
        self.noise, self.steps, self.last = noise.to(steps.device), steps, last

    def __call__(self, x: Tensor) -> Tensor:
        self.noise.anneal(self.steps, self.last)
        return self.noise(x)


def before(network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """``network(x, …)`` is ``network(change(x), …)`` in training, with the keys and the parameters that it has."""

    def hook(module, inputs):
        return (change(inputs[0]), *inputs[1:]) if module.training else None

    network.register_forward_pre_hook(hook)
