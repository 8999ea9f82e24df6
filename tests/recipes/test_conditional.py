from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from ganfast.data.columns import Spec
from ganfast.errors import InputError
from ganfast.recipes import ACGAN, CGAN
from ganfast.recipes.remedies import Remedies

SPECS = {"x": Spec("images", (1, 16, 16)), "y": Spec("labels", (), tuple("abc"))}


def turn(recipe, count=6):
    nets = recipe.networks(SPECS)
    logged = {}
    return SimpleNamespace(
        **nets, x=torch.rand(count, 1, 16, 16), y=torch.arange(count) % 3, normal=lambda n: torch.randn(count, n),
        log=logged.update, logged=logged,
    )  # fmt: skip


@pytest.mark.parametrize("recipe", [ACGAN(width=4, dropout=0.0), CGAN(width=4, conditioning="aux")])
def test_both_players_of_acgan_want_the_class_found_and_disagree_on_the_source(recipe):
    t = turn(recipe)
    loss_d, loss_g = recipe.discriminator(t), recipe.generator(t)
    (real, of_real), (fake, of_fake) = t.D(t.x), t.D(t.fake)
    classes = F.cross_entropy(of_real, t.y), F.cross_entropy(of_fake, t.y)
    source = F.softplus(-real).mean() + F.softplus(fake).mean()
    torch.testing.assert_close(loss_d, source + sum(classes))
    torch.testing.assert_close(loss_g, F.softplus(-fake).mean() + classes[1])
    torch.testing.assert_close(t.logged["cross_entropy_real"], classes[0])
    torch.testing.assert_close(t.logged["cross_entropy_fake"], classes[1])


def test_acgan_classifies_by_its_auxiliary_head():
    recipe = ACGAN(width=4)
    assert {"G", "D"} == set(recipe.averaged) and recipe.dropout == 0.5
    nets = {name: network.eval() for name, network in recipe.networks(SPECS).items()}
    x = torch.rand(4, 1, 16, 16)
    assert torch.equal(recipe.classify(nets, x), nets["D"](x)[1]) and recipe.classify(nets, x).shape == (4, 3)


def test_the_class_that_is_told_is_the_same_for_real_and_fake():
    recipe = CGAN(width=4, conditioning="projection")
    t = turn(recipe)
    loss = recipe.discriminator(t)
    torch.testing.assert_close(loss, F.softplus(-t.D(t.x, t.y)).mean() + F.softplus(t.D(t.fake, t.y)).mean())
    assert set(t.logged) == {"accuracy_real", "accuracy_fake"}


@pytest.mark.parametrize("recipe", [CGAN, ACGAN])
def test_remedies_work_or_are_refused_in_a_sentence(recipe):
    remedies = Remedies(spectral_norm=True, minibatch="discrimination", augment="color", instance_noise=0.1, lr_d=1e-4)
    game = recipe(width=4, remedies=remedies)
    kinds = {type(module).__name__ for module in game.build(SPECS)["D"].modules()}
    assert {"MinibatchFeatures", "_SpectralNorm"} < kinds
    for name, value in (("feature_matching", True), ("virtual_batch_norm", 4)):
        with pytest.raises(InputError, match=rf"recipe {recipe.name} .*: leave out --{name.replace('_', '-')}"):
            recipe(remedies=Remedies(**{name: value}))
