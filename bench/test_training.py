"""A whole step as `ganfast train dcgan` makes it, against the loop of pytorch/examples with the same arithmetic.

    pytest bench/test_training.py --benchmark-only -m "not full"

All rows begin with the same weights and see the same images and latents; the losses of their first three steps agree.
They run under the settings of `ganfast train`: fp32 without TF32, cuDNN's search (which pytorch/examples has on, too).

    ganfast   the trainer's step: batches from the loader, both updates, the averaged generator, norms of gradients;
              on a GPU one CUDA graph
    bare      the same without what a loop by hand does not have: no loader, no average, no norms
    data      what of a step its batch is: loaded and made fp32, with nothing beside it that would hide it
    examples  pytorch/examples dcgan: fp32, NCHW, Adam's default, .item() six times, gradients of D that nobody needs
"""

import functools
from typing import ClassVar

import frame
import nets
import pytest
import torch
from frame import PLACES, Work
from test_steps import work_of
from torch import nn

for package in ("PIL", "safetensors", "tqdm"):  # a machine that has torch alone leaves the trainer out
    pytest.importorskip(package)

from ganfast.data import Dataset, Loader, Sampler  # noqa: E402
from ganfast.models import dcgan  # noqa: E402
from ganfast.recipes import DCGAN  # noqa: E402
from ganfast.training.cuda_graph import CUDAGraphs  # noqa: E402
from ganfast.training.precision import Precision  # noqa: E402
from ganfast.training.state import RunState  # noqa: E402
from ganfast.training.step import Step  # noqa: E402

SIZES = [(32, 32), *frame.in_full((64, 64), (64, 128))]  # width, batch
CPU_MOST = 32 * 32
IMAGES = 512
PRECISION = functools.partial(Precision, "fp32")


def device_of(place):
    return torch.device("cpu" if place == "cpu" else "cuda")


def networks(width, device):
    """G and D as ganfast has them, from the weights of the benchmarks' plain ones."""
    pair = []
    for plain, ours in (
        (nets.initialise(nets.generator(width), 1), dcgan.Generator(64, 3, 100, width)),
        (nets.initialise(nets.discriminator(width), 2), dcgan.Discriminator(64, 3, width)),
    ):
        values = plain.state_dict().values()
        ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
        pair.append(ours.to(device, memory_format=torch.channels_last).train())
    return pair


def data():
    random = torch.Generator().manual_seed(3)
    return Dataset("noise", images=torch.randint(256, (IMAGES, 64, 64, 3), dtype=torch.uint8, generator=random))


class Given(DCGAN):
    """DCGAN with networks that are there already."""

    pairs: ClassVar[dict] = {}

    def networks(self, data):
        return self.pairs[self.width]


def by_ganfast(row, place, width, batch):
    device = device_of(place)
    g, d = networks(width, device)
    loader = Loader(Sampler(data(), batch, seed=4), 1, device)
    state = RunState([loader], PRECISION(device), seed=5)
    recipe = Given(width=width)
    recipe.pairs[width] = {"G": g, "D": d}
    state.begin(recipe, {"x": data().spec("images")})
    step = Step(state)
    run = CUDAGraphs(step, graph=place != "cpu")
    if row == "bare":
        state.ema.clear()
        step.norm = lambda gradients: state.count.new_zeros(())
        loader.load()
        loader.load = lambda: None

    def update():
        run()
        losses = state.means.buffer[:2].clone()  # of D and of G
        state.means.zero()
        return losses

    return update


def by_hand(place, width, batch):
    device = device_of(place)
    g, d = (
        nets.initialise(nets.generator(width), 1).to(device),
        nets.initialise(nets.discriminator(width), 2).to(device),
    )
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (g, d))
    sampler, noise = Sampler(data(), batch, seed=4), torch.Generator(device).manual_seed(5)
    bce, ones, zeros = nn.BCEWithLogitsLoss(), torch.ones(batch, device=device), torch.zeros(batch, device=device)

    def update():
        real = sampler.next()["images"].contiguous().to(device)
        d.zero_grad()
        logits = d(real).flatten()
        on_real = bce(logits, ones)
        on_real.backward()
        logits.mean().item()
        fake = g(torch.randn(batch, 100, generator=noise, device=device)[:, :, None, None])
        logits = d(fake.detach()).flatten()
        on_fake = bce(logits, zeros)
        on_fake.backward()
        logits.mean().item()
        d_adam.step()
        g.zero_grad()
        logits = d(fake).flatten()
        loss_g = bce(logits, ones)
        loss_g.backward()
        logits.mean().item()
        g_adam.step()
        on_real.item(), on_fake.item(), loss_g.item()
        return torch.stack([(on_real + on_fake).detach(), loss_g.detach()])

    return update


class Batches:
    """batches() → (batch,): what the loader does for a step; the first must be the sampler's."""

    def __init__(self, place, batch):
        self.device, self.batch, self.loader = device_of(place), batch, None

    def __call__(self):
        if self.loader is None:
            self.loader = Loader(Sampler(data(), self.batch, seed=4), 1, self.device)
            self.first = Sampler(data(), self.batch, seed=4).next()["images"].to(self.device)
        self.loader.load()
        return (self.loader.batch(0)["images"],)


def of(row, *args) -> frame.Steps:
    return frame.Steps(by_hand if row == "examples" else functools.partial(by_ganfast, row), *args)


@pytest.fixture(autouse=True)
def settings_of_the_trainer(place):
    with PRECISION(device_of(place)).settings():
        yield


@pytest.mark.parametrize("row", ["ganfast", "bare", "data", "examples"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"width{size[0]}-batch{size[1]}")
@pytest.mark.parametrize("place", PLACES[:2])  # a graph is ganfast's own doing
def test_dcgan_training(measure, place, size, row):
    width, batch = size
    if place == "cpu" and width * batch > CPU_MOST:
        pytest.skip("minutes on a CPU")
    with torch.device("meta"):  # to be counted only
        parts = [(nets.generator(width), torch.empty(batch, 100, 1, 1), 3)]
        parts += [(nets.discriminator(width), torch.empty(batch, 3, 64, 64), 8)]
    work: Work = work_of(parts, frame.running("fp32", place))
    rows = {name: of(name, place, *size) for name in dict.fromkeys(["ganfast", row, "examples"])}
    if row == "data":
        rows["data"] = Batches(place, batch)
        work = Work(bytes=batch * 3 * 64 * 64 * (1 + 4))  # uint8 read, fp32 written

    def check(found):
        assert found[0].isfinite().all()
        if rows["examples"].update is None:
            rows["examples"]()
        if found[0].dim() == 4:
            assert torch.equal(found[0], rows["data"].first), "these are not the sampler's images"
            return
        truth = rows["examples"].history
        of = "ganfast" if row == "data" else row
        first = rows[of].history[:1] if row == "bare" else rows[of].history  # bare sees one batch again and again
        error = frame.distance(first, truth[: len(first)])
        assert error <= 5e-3, f"{of} trains something else: losses {error:.2g} from the loop by hand"

    measure(rows, make=tuple, check=check, work=work)
