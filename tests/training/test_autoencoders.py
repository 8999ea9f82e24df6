"""Autoencoders with priors: what their losses are, what they can do, and what a run of one shows and keeps."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from training.games import AUTOENCODERS, images, make, play

from ganfast import Trainer
from ganfast.cli import main
from ganfast.errors import InputError
from ganfast.metrics.lenet import normalise
from ganfast.models.priors import mixture
from ganfast.recipes import RECIPES, Trained
from ganfast.training import latent_map


def trained(name: str) -> Trained:
    state = make(AUTOENCODERS[name]).state
    return Trained(state.game, state.specs, state.averages).eval()


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_what_they_can_do(name):
    model = trained(name)
    x = next(iter(model.specs.values())).shape
    x = torch.rand(3, *x) * 2 - 1
    code = model.encode(x)
    assert code.shape == (3, model.latent_dim) and model.can("bound") == name.startswith("vae") - (name == "vae-gan")
    assert torch.equal(model.reconstruct(x), model.decode(code)) and model.decode(code).shape == x.shape
    example = model.example(3)
    assert torch.equal(model(**example), model.decode(model.recipe.code_of(*example.values())))


@pytest.mark.parametrize("name", ["vae", "vae gaussian"])
def test_the_bound_is_below_the_likelihood_of_the_decoder(name):
    """By importance sampling log p(x) ≈ log mean p(x|z)·p(z)/q(z|x), which is above the mean of the logarithms."""
    model = trained(name)
    x = normalise(images(3).samples)
    torch.manual_seed(0)
    with torch.no_grad():
        weights = torch.stack([log_weight(model, x) for _ in range(100)]).double()
        bounds = torch.stack([model.bound(x) for _ in range(100)]).double()
    mean, error = weights.mean(0), weights.std(0) / 10
    assert ((bounds.mean(0) - mean).abs() < 5 * (error + bounds.std(0) / 10)).all()
    assert (weights.logsumexp(0) - np.log(100) >= mean).all()


def log_weight(model, x):
    """log p(x|z)·p(z)/q(z|x) at one z of q, by torch.distributions: its mean is the ELBO."""
    mean, log_variance = model.networks["E"](x).chunk(2, 1)
    q, p = torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    z = q.sample()
    pixels, seen = (x + 1) / 2, (model.networks["G"](z) + 1) / 2
    if "S" in model.networks:
        of_pixels = torch.distributions.Normal(seen, model.networks["S"]().exp())
    else:
        of_pixels = torch.distributions.Bernoulli(probs=seen, validate_args=False)
    return of_pixels.log_prob(pixels).flatten(1).sum(1) + (p.log_prob(z) - q.log_prob(z)).sum(1)


def test_figures_of_a_vae_add_up():
    row = play(make(AUTOENCODERS["vae"]), 1)[0]
    assert row["elbo"] == pytest.approx(-row["reconstruction"] - row["kl"], rel=1e-5)
    assert row["loss_vae"] == pytest.approx(-row["elbo"], rel=1e-5) and row["kl"] > 0
    plain = RECIPES["vae"](width=4, latent_dim=6, kl_weight=0.0, architecture="dcgan")
    row = play(make(plain), 1)[0]
    assert row["loss_vae"] == pytest.approx(row["reconstruction"], rel=1e-5)


def test_labels_choose_the_mode_of_the_prior():
    model = trained("aae supervised")
    z, y = torch.randn(5, 2), torch.arange(5)
    assert torch.equal(model(z, y), model.decode(mixture(z, 5, y)))
    assert not torch.equal(model(z, y), model(z, y.flip(0)))
    with pytest.raises(InputError, match="prior must be mixture or swiss-roll with --supervised, got gaussian"):
        RECIPES["aae"](supervised=True)
    with pytest.raises(InputError, match="latent_dim must be 2 with --prior swiss-roll, got 3"):
        RECIPES["aae"](prior="swiss-roll", latent_dim=3)
    recipe = RECIPES["aae"](prior="mixture", supervised=True, modes=4)
    with pytest.raises(InputError, match=r"modes must be the number of classes, 5, with --supervised, got 4 \(--modes"):
        Trainer(recipe, images(), batch=4, steps=1)


def test_a_map_has_each_code_where_it_lies_in_the_colour_of_its_label():
    prior = np.random.default_rng(0).normal(0, 1, (4000, 2))
    codes = np.array([[2.0, 2.0], [2.0, 3.0], [2.0, 1.0], [-2.0, -2.0], [-2.0, -1.0], [-2.0, -3.0]]).repeat(50, 0)
    picture = latent_map.draw(codes, prior, torch.arange(300) // 150, ("left", "right")).astype(int)
    extent = 1.05 * max(np.quantile(np.abs(prior), 0.999), 2)
    side = len(picture)
    at = lambda x, y: picture[round(side / 2 * (1 - y / extent)), round(side / 2 * (1 + x / extent))]  # noqa: E731
    for k, (x, y) in enumerate(((2, 1), (-2, -1))):  # away from the names, which are in the middle
        assert np.abs(at(x, y) - latent_map.colour(k, 2)).max() < 3
    middle = picture[side // 2 - 20 : side // 2 + 20, side // 2 - 20 : side // 2 + 20]
    assert middle.mean() < 245 and np.ptp(middle, axis=2).max() == 0  # the prior, grey
    assert (at(-0.95 * extent, 0.95 * extent) == 255).all()


@pytest.mark.slow
def test_a_run_keeps_its_scores_and_its_map(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ganfast.metrics.parzen.SAMPLES", 50)
    tiny = ["--width", "4", "--batch", "8", "--steps", "2", "--outdir", str(tmp_path), "--latent-dim", "2"]
    assert main(["train", "vae", "--data", "digits", *tiny]) == 0
    (run,) = tmp_path.iterdir()
    assert main(["evaluate", str(run), "--samples", "20", "--parzen"]) == 0
    out = capsys.readouterr().out
    assert "ELBO" in out and "Parzen" in out and "latents.png" in out
    bound, parzen = (json.loads((run / f"metric-{name}.jsonl").read_text()) for name in ("bound", "parzen"))
    assert bound["images"] == 1797 and bound["elbo"] < 0 and parzen["windows"] == 50
    with Image.open(run / "latents.png") as picture:
        assert picture.size == (800, 800)
    assert main(["report", str(run)]) == 0
    assert "Codes of real samples" in (run / "report.html").read_text()
