"""Semi-supervised learning with GANs: section 5 of Salimans et al. 2016 (arXiv:1606.03498)."""

from dataclasses import dataclass

from torch.nn import functional as F

from ganfast.data.columns import Images, Labels
from ganfast.objectives import discriminator_bce, generator_non_saturating
from ganfast.recipes.base import scores, share
from ganfast.recipes.classifying import ClassifyingGAN
from ganfast.recipes.remedies import Remedies


@dataclass(frozen=True, kw_only=True)
class SGAN(ClassifyingGAN):
    """A classifier of few labelled images, --data-b, is the discriminator of many without (Salimans et al. 2016).

    Of its K+1 classes the last, fake, has the logit 0: D(x) = Z/(Z + 1) of Z = Σ exp(l_k), and the logit of D is log Z.
    """

    name = "sgan"
    columns = {"x": Images(), "labelled": Images(source=1), "y": Labels(source=1)}
    telling = ("accuracy_labelled", "accuracy_real", "accuracy_fake")

    lr: float = 3e-3
    """Adam's learning rate"""
    remedies: Remedies = Remedies(feature_matching=True)

    def discriminator(self, t):
        t.fake = t.G(t.normal(self.latent_dim))
        real, fake = (logits.logsumexp(1) for logits in scores(t.D, t.x, t.fake.detach()))
        labelled = t.D(t.labelled)
        t.log(accuracy_labelled=share(labelled.argmax(1) == t.y))
        t.log(accuracy_real=share(real > 0), accuracy_fake=share(fake < 0))
        return F.cross_entropy(labelled, t.y) + discriminator_bce(real, fake)

    def generator(self, t):
        return generator_non_saturating(t.D(t.fake).logsumexp(1))
