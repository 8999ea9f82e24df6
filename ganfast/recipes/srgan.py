"""SRGAN: Photo-Realistic Single Image Super-Resolution (Ledig et al. 2017, arXiv:1609.04802)."""

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F

from ganfast.data.columns import Spec
from ganfast.data.degradations import downscale, upscale
from ganfast.models import srgan, vgg
from ganfast.objectives import discriminator_bce, generator_non_saturating
from ganfast.recipes.base import Player, Recipe, Stage, scores, share


@dataclass(frozen=True, kw_only=True)
class SRGAN(Recipe):
    """Pictures of 2 or 4 times as many pixels a side: first the nearest ones, then plausible ones (Ledig et al. 2017).

    SRResNet minimises the squared error; then, against a discriminator, that of VGG16's conv4_1 (--vgg), or without it
    still that of pixels. The small pictures are made of the data's, bicubic and antialiased.
    """

    name = "srgan"
    answer = "x"
    sides = 1
    judges = ("D",)
    telling = ("content",)
    batch = 16
    adversarial_stage: ClassVar[bool] = True

    scale: Literal[2, 4] = 4
    """how many times as many pixels a side"""
    width: int = 64
    """features of the generator, and of the discriminator's first layer"""
    blocks: int = 16
    """residual blocks of the generator"""
    residual: bool = False
    """the generator makes what is added to the bicubic picture (Kim et al. 2016), which shortens training"""
    pretraining: float = 0.8
    """share of the steps that minimise the squared error alone; 1 is SRResNet"""
    adversarial: float = 1e-3
    """weight of the adversarial loss"""
    vgg: str = ""
    """weights of VGG16 up to conv4_1, whose features the content loss compares"""
    lr: float = 1e-4
    """Adam's learning rate"""
    beta1: float = 0.9
    """Adam's decay rate of the first moment"""

    def __post_init__(self):
        super().__post_init__()
        self.require(0 <= self.pretraining <= 1, "pretraining", "lie in [0, 1]")

    def stages(self, steps):
        alone, first = round(self.pretraining * steps), copy.copy(self)
        vars(first).update(adversarial_stage=False, judges=())
        return [stage for stage in (Stage(alone, first), Stage(steps - alone, self)) if stage.steps]

    @property
    def given(self):
        return {"low": lambda d: Spec("images", (d["x"].shape[0], *(n // self.scale for n in d["x"].shape[1:])))}

    def networks(self, data):
        channels, *size = data["x"].shape
        found = {"G": srgan.SRResNet(channels, self.width, self.blocks, self.scale, self.residual)}
        if self.adversarial_stage:
            found |= {"D": srgan.Discriminator(size, channels, self.width)} | ({"V": vgg.Maps()} if self.vgg else {})
        return found

    def begin(self, networks):
        if "V" in networks:
            networks["V"].load(self.vgg)

    def players(self):
        return [Player(("D",), self.discriminator)] * self.adversarial_stage + [Player(("G",), self.generator)]

    def discriminator(self, t):
        t.fake = t.G(downscale(t.x, self.scale))
        real, fake = scores(t.D, t.x, t.fake.detach())
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return discriminator_bce(real, fake)

    def generator(self, t):
        fake = t.fake if self.adversarial_stage else t.G(downscale(t.x, self.scale))
        content = F.mse_loss(fake, t.x)
        if self.adversarial_stage and self.vgg:
            corner = t.categorical(vgg.STRIDE), t.categorical(vgg.STRIDE)  # so that poolings make no grid
            content = vgg.SCALE**2 * F.mse_loss(*(t.V(vgg.window(x, *corner))[-1] for x in (fake, t.x)))
        t.log(content=content)
        return content + (self.adversarial * generator_non_saturating(t.D(fake)) if self.adversarial_stage else 0)

    def sample(self, nets, z, given):
        return nets["G"](given["low"]).clamp(-1, 1)

    def question(self, columns, random):
        return {"low": downscale(columns["x"], self.scale)}

    def trivial(self, given):
        return {"bicubic": upscale(given["low"], self.scale).clamp(-1, 1)}
