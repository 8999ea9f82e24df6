"""sgan and catgan: discriminators that are classifiers."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from training.games import SEMI, images, make, play

from ganfast import Trainer
from ganfast.data import Labels
from ganfast.errors import InputError
from ganfast.models import noisy
from ganfast.objectives import conditional_entropy, marginal_entropy
from ganfast.recipes import RECIPES
from ganfast.recipes.remedies import Remedies

SMALL = {"width": 1, "latent_dim": 3}
REAL, FAKE, LABELLED = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)).double()
Y = torch.tensor([0, 1, 2, 3, 0, 1])


def turn():
    """In which networks hand their argument on."""
    identity = torch.nn.Identity()
    return SimpleNamespace(x=REAL, labelled=LABELLED, y=Y, D=identity, G=lambda z: FAKE, normal=lambda n: n,
                           log=lambda **figures: None)  # fmt: skip


def test_sgan_is_a_softmax_of_one_more_class():
    """−log p(y | labelled) − log(1 − p(K+1 | x)) − log p(K+1 | G(z)), of a last logit that is 0."""
    t = turn()
    loss = RECIPES["sgan"]().discriminator(t)
    real, fake = (F.pad(logits, (0, 1)).softmax(1) for logits in (REAL, FAKE))
    wanted = F.cross_entropy(LABELLED, Y) - real[:, :4].sum(1).log().mean() - fake[:, 4].log().mean()
    torch.testing.assert_close(loss, wanted, check_dtype=False)
    wanted = -fake[:, :4].sum(1).log().mean()
    torch.testing.assert_close(RECIPES["sgan"]().generator(t), wanted, check_dtype=False)


@pytest.mark.parametrize("labels", [False, True])
def test_catgan_is_its_entropies(labels):
    t, recipe = turn(), RECIPES["catgan"](semi_supervised=labels, label_weight=3.0)
    wanted = conditional_entropy(REAL) - marginal_entropy(REAL) - conditional_entropy(FAKE)
    torch.testing.assert_close(recipe.discriminator(t), wanted + 3 * labels * F.cross_entropy(LABELLED, Y))
    torch.testing.assert_close(recipe.generator(t), conditional_entropy(FAKE) - marginal_entropy(FAKE))
    assert any(isinstance(column, Labels) for column in recipe.columns.values()) == labels
    assert RECIPES["catgan"](**SMALL, categories=7).classes({}) == 7


@pytest.mark.parametrize("name", SEMI)
def test_all_networks_learn(name):
    step = make(SEMI[name])
    before = [p.clone() for network in step.state.networks.values() for p in network.parameters()]
    (figures,) = play(step, 1)
    assert set(step.state.game.telling) < set(figures)
    after = [p for network in step.state.networks.values() for p in network.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(before, after))


def test_the_classifier_is_noisy_in_training_alone_and_its_rows_keep_their_norm():
    step = make(SEMI["sgan"])
    classifier, x = step.state.networks["D"], torch.rand(3, 1, 16, 16) * 2 - 1
    assert not torch.equal(classifier(x), classifier(x))
    play(step, 2)
    classifier.eval()
    assert torch.equal(classifier(x), classifier(x)) and classifier(x).shape == (3, 5)
    linears = [layer for layer in classifier.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linears] == [64, 32, 16, 16, 16, 5]
    for layer in linears[:-1]:
        torch.testing.assert_close(layer.weight.norm(dim=1), torch.full((layer.out_features,), 2**0.5))
    assert isinstance(step.state.networks["G"], noisy.Generator)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match="weights that are normalised already: leave out --spectral-norm"):
        RECIPES["sgan"](remedies=Remedies(spectral_norm=True))
    with pytest.raises(InputError, match=r"categories must be at least 2, got 1 \(--categories\)"):
        RECIPES["catgan"](categories=1)
    with pytest.raises(InputError, match="does not match features: leave out --feature-matching"):
        RECIPES["catgan"](remedies=Remedies(feature_matching=True))
    with pytest.raises(InputError, match=r"both sets need one shape.*--size and --channels"):
        Trainer(RECIPES["sgan"](**SMALL), [images(), images(size=32)], batch=4, outdir=str(tmp_path))
    with pytest.raises(InputError, match="needs two data sets, got one: give the second one as --data-b"):
        Trainer(RECIPES["catgan"](**SMALL, semi_supervised=True), images(), batch=4, outdir=str(tmp_path))
