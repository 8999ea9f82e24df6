"""One training step against the loop that everybody writes by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from ganfast.data import Dataset, Feed, Stream
from ganfast.models import dcgan
from ganfast.recipes import DCGAN, GAN, R3GAN, WGAN, WGANGP
from ganfast.training.precision import Precision
from ganfast.training.step import Step

CPU = torch.device("cpu")


def images(count=40, size=16):
    generator = torch.Generator().manual_seed(0)
    return Dataset("noise", torch.randint(256, (count, size, size, 1), dtype=torch.uint8, generator=generator))


def make(recipe, data=None, batch=6, networks=None, precision="fp32", **options):
    """A step on the CPU, loaded with its first batches."""
    data = data or images()
    torch.manual_seed(1)
    generator, discriminator = networks or recipe.networks(data.shape)
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    feed = Feed(Stream(data, batch, seed=3), recipe.d_steps, CPU)
    step = Step(recipe, (generator, discriminator, average), feed, Precision(precision, CPU), seed=7, **options)
    feed.load()
    return step


def by_hand(recipe, generator, discriminator, reals, seed):
    """The update of pytorch/examples: D on real and detached fake, then G through D with the same fakes."""
    bce = nn.BCEWithLogitsLoss()
    opt_g = torch.optim.Adam(generator.parameters(), recipe.lr, (recipe.beta1, recipe.beta2))
    opt_d = torch.optim.Adam(discriminator.parameters(), recipe.lr, (recipe.beta1, recipe.beta2))
    noise = torch.Generator().manual_seed(seed)
    for real in reals:
        fake = generator(torch.randn(len(real), generator.latent_dim, generator=noise))
        opt_d.zero_grad()
        loss_d = bce(discriminator(real), torch.ones(len(real))) + bce(
            discriminator(fake.detach()), torch.zeros(len(real))
        )
        loss_d.backward()
        norm_d = math.sqrt(sum(p.grad.square().sum().item() for p in discriminator.parameters()))
        opt_d.step()
    opt_g.zero_grad()
    loss_g = bce(discriminator(fake), torch.ones(len(real)))
    loss_g.backward()
    norm_g = math.sqrt(sum(p.grad.square().sum().item() for p in generator.parameters()))
    opt_g.step()
    return loss_d.item(), loss_g.item(), norm_d, norm_g


@pytest.mark.parametrize("d_steps", [1, 3])
def test_equal_to_the_loop_by_hand(d_steps):
    recipe = DCGAN(width=4, latent_dim=6, d_steps=d_steps)
    step = make(recipe)
    theirs = copy.deepcopy(step.generator), copy.deepcopy(step.discriminator)
    expected = by_hand(recipe, *theirs, [step.feed.batch(k) for k in range(d_steps)], seed=7)
    step()
    loss_d, loss_g, _, _, norm_d, norm_g, count = step.sums.tolist()
    assert (loss_d, loss_g, norm_d, norm_g) == pytest.approx(expected, rel=1e-5) and count == 1
    for a, b in zip((step.generator, step.discriminator), theirs):
        for one, other in zip(a.state_dict().values(), b.state_dict().values()):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_gradients_lie_in_one_buffer_with_the_strides_of_their_parameters():
    step = make(DCGAN(width=4, latent_dim=6))
    step.discriminator.to(memory_format=torch.channels_last)
    step = make(DCGAN(width=4, latent_dim=6), networks=(step.generator, step.discriminator))
    flat = step.gradients_d
    for _ in range(2):
        step()
    assert flat.parameters == list(step.discriminator.parameters())
    for parameter in flat.parameters:
        assert parameter.grad.untyped_storage().data_ptr() == flat.buffer.untyped_storage().data_ptr()
        assert parameter.grad.stride() == parameter.stride() and parameter.grad.abs().sum() > 0
        assert parameter.grad.storage_offset() % 16 == 0
    squares = sum(p.grad.double().square().sum() for p in flat.parameters)
    assert flat.norm().item() == pytest.approx(squares.sqrt().item(), rel=1e-5)  # nothing lies between the views


def test_the_generator_update_makes_no_gradients_for_the_discriminator():
    step = make(DCGAN(width=4, latent_dim=6))
    calls = []
    for parameter in step.discriminator.parameters():
        parameter.register_hook(lambda gradient: calls.append(gradient.shape))
    step()
    assert len(calls) == len(list(step.discriminator.parameters()))  # each once: the discriminator's own update


class Sure(nn.Module):
    """Says real to whatever is positive; counts its calls."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return self.scale * images.flatten(1).mean(1).sign()


def test_figures_are_what_they_say():
    generator = dcgan.Generator(16, 1, 3, 2)
    nn.init.constant_(generator.layers[-1].conv.bias, -3.0)  # every fake is negative
    values = torch.tensor([255, 255, 255, 0], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 16, 16, 1)
    sure = Sure()
    step = make(DCGAN(width=2, latent_dim=3), Dataset("signs", values), 4, (generator, sure))
    step()
    loss_d, loss_g, on_real, on_fake, _, _, _ = step.sums.tolist()
    assert (on_real, on_fake) == (0.75, 1.0)
    assert loss_d == pytest.approx(10 / 4, abs=1e-3) and loss_g == pytest.approx(10, abs=1e-2)
    assert sure.batches == [8, 4]  # without BatchNorm one pass over real and fake


@pytest.mark.parametrize("recipe", [DCGAN, WGAN])
def test_real_and_fake_are_merged_over_batch_norm_only_if_asked_for(recipe):
    for merge, calls in ((False, 2), (True, 1)):
        each = recipe(width=2, latent_dim=3, merge=merge)
        step = make(each)
        step.discriminator.train()
        seen = []
        step.discriminator.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(len(args[0])))
        each.discriminator_gradients(step.discriminator, torch.zeros(4, 1, 16, 16), torch.ones(4, 1, 16, 16), step)
        assert len(seen) == calls and sum(seen) == 8


@pytest.mark.parametrize(
    "decay, factors", [("linear", [1, 0.75, 0.5, 0.25]), ("cosine", [1, 0.8535534, 0.5, 0.1464466])]
)
def test_learning_rates_fall(decay, factors):
    recipe = DCGAN(width=2, latent_dim=3, lr=1e-3)
    step = make(recipe, lr_decay=decay, total=4)
    for factor in factors:
        step()
        for optimizer in (step.optimizer_d, step.optimizer_g):
            assert optimizer.param_groups[0]["lr"].item() == pytest.approx(1e-3 * factor)


RECIPES = {
    "dcgan": DCGAN(width=4, latent_dim=6),
    "wgan": WGAN(width=4, latent_dim=6, d_steps=2),
    "wgan-gp": WGANGP(width=4, latent_dim=6, d_steps=2),
    "wgan-gp resnet": WGANGP(width=4, latent_dim=6, d_steps=1, architecture="resnet"),
    "r3gan": R3GAN(width=4, latent_dim=6),
}


def losses(step, count):
    rows = []
    for _ in range(count):
        step()
        rows.append(step.sums.clone())
        step.sums.zero_()
        step.feed.load()
    return torch.stack(rows)


@pytest.mark.parametrize("name", RECIPES)
def test_fp16_scales_its_losses_and_trains_alike(name):
    wide = losses(make(RECIPES[name]), 3)
    step = make(RECIPES[name], precision="fp16")
    step.precision.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    half = losses(step, 3)
    assert half.isfinite().all() and step.scale == 64
    torch.testing.assert_close(half[0, :2], wide[0, :2], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(half[:, 4:], wide[:, 4:], rtol=0.1, atol=1e-3)  # norms of gradients, unscaled
    assert all(p.dtype == torch.float32 for p in step.discriminator.parameters())


def test_an_update_that_overflows_in_fp16_is_left_out_and_the_scale_falls():
    step = make(DCGAN(width=4, latent_dim=6), precision="fp16")
    step.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = [p.clone() for p in step.discriminator.parameters()]
    step()
    assert step.scale < 2.0**60 and step.sums.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(before, step.discriminator.parameters()))
    step.precision.scaler.update(256.0)
    step()
    assert not all(torch.equal(a, b) for a, b in zip(before, step.discriminator.parameters()))


@pytest.mark.slow
@pytest.mark.usefixtures("inductor")
@pytest.mark.parametrize("name", ["dcgan", "wgan-gp"])
def test_compiled_steps_have_the_losses_of_eager_ones(name):
    eager = losses(make(RECIPES[name]), 50)
    compiled = make(RECIPES[name])
    compiled.compile()
    found = losses(compiled, 50)
    torch.compiler.reset()
    torch.testing.assert_close(found[:5], eager[:5], rtol=1e-3, atol=1e-4)
    # rounding grows: as far as it does from weights that are one rounding away
    nudged = make(RECIPES[name])
    with torch.no_grad():
        for parameter in nudged.discriminator.parameters():
            parameter.mul_(1 + 2e-7)
    growth = (losses(nudged, 50) - eager).abs().amax(0)
    assert ((found - eager).abs().amax(0) <= 10 * growth + 1e-3).all()


def test_points_too():
    data = Dataset("points", torch.randn(50, 2))
    assert losses(make(GAN(width=8), data), 2).isfinite().all()


@pytest.mark.parametrize("shape", [(), (5,), (1, 4)])
def test_each_process_draws_its_rows_of_what_one_draws(shape):
    whole = make(GAN(width=8), Dataset("points", torch.randn(50, 2)))
    drawn = whole.uniform(6, *shape)
    assert drawn.shape == (6, *shape) and drawn.min() >= 0 and drawn.max() < 1
    for rank in range(3):
        step = make(GAN(width=8), Dataset("points", torch.randn(50, 2)))
        step.feed = Feed(step.feed.stream, 1, CPU, share=(rank, 3))
        assert torch.equal(step.uniform(2, *shape), drawn[2 * rank :][:2])
        for count in (6, 1):
            with pytest.raises(
                ValueError, match=f"count: got {count}, needs 2, the samples of a batch in this process"
            ):
                step.uniform(count, *shape)
