"""Adversarial losses as modules."""

from torch import nn

from ganfast import functional


class BCEWithLogitsGANLoss(nn.Module):
    """``functional.sigmoid_bce`` with its targets: loss(real_logits, fake_logits), either may be None.

    The discriminator's loss is ``loss(real, fake)``; the generator's non-saturating one ``loss(fake_logits)``,
    fakes on the real side. ``real_target=0.9`` is one-sided label smoothing.
    """

    def __init__(self, real_target=1.0, fake_target=0.0):
        super().__init__()
        self.real_target = real_target
        self.fake_target = fake_target

    def forward(self, real_logits, fake_logits=None):
        return functional.sigmoid_bce(real_logits, fake_logits, self.real_target, self.fake_target)

    def extra_repr(self):
        return f"real_target={self.real_target}, fake_target={self.fake_target}"
