"""CatGAN: Unsupervised and Semi-supervised Learning with Categorical GANs (Springenberg 2016, arXiv:1511.06390)."""

from dataclasses import dataclass

from torch.nn import functional as F

from ganfast.data.columns import Images, Labels
from ganfast.objectives import conditional_entropy, marginal_entropy
from ganfast.recipes.base import scores, share
from ganfast.recipes.classifying import ClassifyingGAN
from ganfast.recipes.remedies import Remedies


@dataclass(frozen=True, kw_only=True)
class CatGAN(ClassifyingGAN):
    """D is sure of real samples' categories, evenly used, and unsure of fake ones (Springenberg 2016).

    Its fully connected networks are those of Salimans et al. 2016, as sgan's.
    D maximises H(E p(y|x)) − E H(p(y|x)) + E H(p(y|G(z))), G maximises H(E p(y|G(z))) − E H(p(y|G(z))).
    """

    name = "catgan"
    telling = ("entropy_real", "entropy_fake", "categories_used")
    match_features = None

    categories: int = 10
    """K, the categories that it finds; with --semi-supervised they are the classes of the labels"""
    semi_supervised: bool = False
    """learn the classes of few labelled images, --data-b, too"""
    label_weight: float = 1.0
    """weight of their cross-entropy"""
    lr: float = 1e-3
    """Adam's learning rate of the generator; --lr-d is the discriminator's"""
    remedies: Remedies = Remedies(lr_d=2e-4)

    def __post_init__(self):
        super().__post_init__()
        self.require(self.categories >= 2, "categories", "be at least 2")
        self.require(self.label_weight >= 0, "label_weight", "be 0 or more")

    @property
    def columns(self):
        labelled = {"labelled": Images(source=1), "y": Labels(source=1)} if self.semi_supervised else {}
        return {"x": Images(), **labelled}

    def classes(self, data):
        return data["y"].classes if self.semi_supervised else self.categories

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = scores(t.D, t.x, t.fake.detach())
        used, of_real, of_fake = marginal_entropy(real), conditional_entropy(real), conditional_entropy(fake)
        t.log(entropy_real=of_real, entropy_fake=of_fake, categories_used=used.exp())
        loss = of_real - used - of_fake
        if self.semi_supervised:
            labelled = t.D(t.labelled)
            t.log(accuracy_labelled=share(labelled.argmax(1) == t.y))
            loss = loss + self.label_weight * F.cross_entropy(labelled, t.y)
        return loss

    def generator(self, t):
        fake = t.D(t.fake)
        return conditional_entropy(fake) - marginal_entropy(fake)
