"""Conditional GAN (Mirza and Osindero 2014, arXiv:1411.1784), and two other ways to give the class to D."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.nn import functional as F

from ganfast.data.columns import Images, Labels
from ganfast.models import conditional
from ganfast.recipes.base import share
from ganfast.recipes.original import OriginalGAN


@dataclass(frozen=True, kw_only=True)
class CGAN(OriginalGAN):
    """Both networks are given the class of a sample, of labelled images (Mirza et al. 2014).

    With --conditioning projection it enters D behind the features (Miyato and Koyama 2018, arXiv:1802.05637); with aux
    D has to find it, as in acgan.
    """

    name = "cgan"
    columns = {"x": Images(), "y": Labels()}
    given = {"y": Labels()}
    match_features = None
    merge: ClassVar[bool] = False

    architecture: Literal["dcgan", "resnet", "mlp"] = "dcgan"
    """networks; mlp: the paper's, whose units --width 64 gives"""
    conditioning: Literal["concat", "projection", "aux"] = "concat"
    """the discriminator is given the class as input, projects features onto its embedding, or has to find it"""

    def networks(self, data):
        shape, classes = data["x"].shape, data["y"].classes
        return {
            "G": conditional.generator(shape, self.latent_dim, classes, self.width, self.architecture),
            "D": conditional.discriminator(shape, classes, self.width, self.architecture, self.conditioning),
        }

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim), t.y)
        (real, of_real), (fake, of_fake) = self.judge(t, t.x), self.judge(t, t.fake.detach())
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        if self.conditioning == "aux":
            t.log(cross_entropy_real=of_real, cross_entropy_fake=of_fake)
        return self.loss_d(real, fake) + of_real + of_fake

    def generator(self, t):
        fake, of_fake = self.judge(t, t.fake)
        return self.loss_g(fake) + of_fake

    def judge(self, t, samples):
        """Scores of samples of the classes t.y, and the cross-entropy of what D takes them for; 0 where it is told."""
        if self.conditioning != "aux":
            return t.D(samples, t.y), 0.0
        scores, logits = t.D(samples)
        return scores, F.cross_entropy(logits, t.y)

    def sample(self, nets, z, given):
        return nets["G"](z, given["y"])
