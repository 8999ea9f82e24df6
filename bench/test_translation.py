"""A whole step of `ganfast train cyclegan` and `pix2pix`, against the loops of the field with the same arithmetic.

    pytest bench/test_translation.py --benchmark-only -m "not full"

Images of 128 pixels; a ResNet of nine blocks, a U-Net of seven halvings, discriminators of 70×70 patches. All rows
begin with the same weights and see the same images; the losses of their first three steps agree. They run under the
settings of `ganfast train`: fp32 without TF32, cuDNN's search.

    ganfast   the trainer's step: batches from the loader, averages, pools, norms of gradients; networks fused; on a GPU
              one CUDA graph
    unfused   the same with torch's layers in the networks, in NCHW: in channels_last torch 2.13 differentiates
              InstanceNorm2d wrongly on a CPU
    authors   bench/translation.py: eager PyTorch, fp32, NCHW, Adam's default, a backward() for each discriminator

And the generator of CycleGAN alone: forward, backward of its L1 distance to other images, Adam, in both layouts.

    ganfast   its layers fused
    eager     bench/translation.py's, with the same optimiser
"""

import functools

import frame
import nets
import pytest
import torch
import translation
from frame import PLACES
from test_steps import work_of
from torch import nn

for package in ("PIL", "safetensors", "tqdm"):  # a machine that has torch alone leaves the trainer out
    pytest.importorskip(package)

from ganfast.data import Dataset, Loader, Sampler, match  # noqa: E402
from ganfast.models import cyclegan  # noqa: E402
from ganfast.recipes import CycleGAN, Pix2Pix  # noqa: E402
from ganfast.recipes.adam import Adam  # noqa: E402
from ganfast.training import state as training_state  # noqa: E402
from ganfast.training.cuda_graph import CUDAGraphs  # noqa: E402
from ganfast.training.precision import Precision  # noqa: E402
from ganfast.training.step import Step  # noqa: E402

# recipe, width, batch
CASES = [("cyclegan", 8, 1), ("pix2pix", 16, 1)]
CASES += frame.in_full(*(("cyclegan", *size) for size in ((16, 1), (16, 4), (64, 1))))
CASES += frame.in_full(*(("pix2pix", *size) for size in ((16, 4), (64, 1))))
BOUND = 1e-3  # of the losses of three updates: at width 64 one rounding of the weights moves them by 4e-4
SIDE, IMAGES, SEED = 128, 32, 4
RECIPES = {"cyclegan": (CycleGAN, {}), "pix2pix": (Pix2Pix, {"dropout": 0.0})}
NETWORKS = {  # of bench/translation.py, in the order of the recipes'
    "cyclegan": lambda width: {
        **{g: translation.resnet(width) for g in ("G_ab", "G_ba")},
        **{d: translation.patches(3, width, nn.InstanceNorm2d) for d in ("D_a", "D_b")},
    },
    "pix2pix": lambda width: {"G": translation.unet(width), "D": translation.patches(6, width, nn.BatchNorm2d)},
}
TIMES = {"cyclegan": {"G_ab": 9, "G_ba": 9, "D_a": 8, "D_b": 8}, "pix2pix": {"G": 3, "D": 8}}  # passes of a step
PRECISION = functools.partial(Precision, "fp32")


def device_of(place):
    return torch.device("cpu" if place == "cpu" else "cuda")


@functools.cache
def data(name) -> tuple[Dataset, ...]:
    random = torch.Generator().manual_seed(3)
    first, second = (torch.randint(256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8, generator=random) for _ in range(2))
    if name == "pix2pix":
        return (Dataset("noise", images=first, targets=second),)
    return Dataset("noise", images=first), Dataset("noise", images=second)


def plain(name, width) -> dict:
    """The networks of the authors' loop; the same weights each time."""
    return {key: nets.initialise(net, seed) for seed, (key, net) in enumerate(NETWORKS[name](width).items())}


def take(network, other) -> None:
    """The weights of another network of the same layers, whose names may differ."""
    network.load_state_dict(dict(zip(network.state_dict(), other.state_dict().values(), strict=True)))


def by_ganfast(row, place, name, width, batch):
    device, theirs, sets = device_of(place), plain(name, width).values(), data(name)
    kind, options = RECIPES[name]

    class Given(kind):
        """The recipe with the weights of the authors' networks."""

        def build(self, specs):
            mine = super().build(specs)
            for network, other in zip(mine.values(), theirs, strict=True):
                take(network, other)
            return mine

    recipe = Given(width=width, **options)
    loaders = [Loader(Sampler(each, batch, seed=SEED + k), 1, device) for k, each in enumerate(sets)]
    order = torch.contiguous_format if row == "unfused" else torch.channels_last
    place_on = lambda network: network.to(device, memory_format=order)  # noqa: E731
    run = training_state.RunState(loaders, PRECISION(device), seed=5, place=place_on)
    fuse = training_state.fuse
    try:
        if row == "unfused":
            training_state.fuse = lambda network: None
        run.begin(recipe, match(name, recipe.columns, sets))
    finally:
        training_state.fuse = fuse
    step = CUDAGraphs(Step(run), graph=place != "cpu")

    def update():
        step()
        losses = run.means.buffer[:2].clone()  # of the two players
        run.means.zero()
        return losses

    return update


def by_authors(place, name, width, batch):
    device = device_of(place)
    networks = [network.to(device).train() for network in plain(name, width).values()]
    train = getattr(translation, name)(*networks)
    samplers = [Sampler(each, batch, seed=SEED + k) for k, each in enumerate(data(name))]

    def update():
        images = [column.contiguous().to(device) for sampler in samplers for column in sampler.next().values()]
        return train(*images)

    return update


def of(row, *args) -> frame.Steps:
    return frame.Steps(by_authors if row == "authors" else functools.partial(by_ganfast, row), *args)


@pytest.fixture(autouse=True)
def settings_of_the_trainer(place):
    with PRECISION(device_of(place)).settings():
        yield


@pytest.mark.parametrize("row", ["ganfast", "unfused", "authors"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "{}-width{}-batch{}".format(*case))
@pytest.mark.parametrize("place", PLACES[:2])  # a graph is ganfast's own doing
def test_translation(measure, place, case, row):
    name, width, batch = case
    with torch.device("meta"):  # to be counted only
        networks = NETWORKS[name](width)
        channels = {key: 6 if name == "pix2pix" and key == "D" else 3 for key in networks}
        images = {key: torch.empty(batch, channels[key], SIDE, SIDE) for key in networks}
        parts = [(network, images[key], TIMES[name][key]) for key, network in networks.items()]
    rows = {key: of(key, place, *case) for key in dict.fromkeys(["ganfast", row, "authors"])}

    def check(found):
        assert found[0].isfinite().all()
        if rows["authors"].update is None:
            rows["authors"]()
        error = frame.distance(rows[row].history, rows["authors"].history)
        assert error <= BOUND, f"{row} trains something else: losses {error:.2g} from the authors'"

    measure(rows, make=tuple, check=check, work=work_of(parts, frame.running("fp32", place)))


GENERATORS = [(order, width, batch) for width in (8, 16) for batch in (1, 4) for order in ("nchw", "channels_last")]
GENERATORS += frame.in_full(*((order, 64, 1) for order in ("nchw", "channels_last")))


def by_generator(row, order, width, batch):
    memory_format = torch.channels_last if order == "channels_last" else torch.contiguous_format
    network = nets.initialise(translation.resnet(width), 0)
    if row == "ganfast":
        theirs, network = network, cyclegan.Generator(width=width)
        take(network, theirs)
    network.to(memory_format=memory_format)
    adam = Adam(network.parameters(), fused=True, **translation.ADAM)
    x, y = (column[:batch] for column in Sampler(data("pix2pix")[0], 4, seed=SEED).next().values())
    x = x.contiguous(memory_format=memory_format)

    def update():
        adam.zero_grad()
        loss = (network(x) - y).abs().mean()
        loss.backward()
        adam.step()
        return loss.detach()

    return update


@pytest.mark.parametrize("row", ["ganfast", "eager"])
@pytest.mark.parametrize("case", GENERATORS, ids=lambda case: "{}-width{}-batch{}".format(*case))
@pytest.mark.parametrize("place", PLACES[:1])
def test_resnet_generator(measure, place, case, row):
    """Losses of three steps; of eager's one sample in channels_last, which torch derives wrongly, of the first."""
    with torch.device("meta"):
        parts = [(translation.resnet(case[1]), torch.empty(case[2], 3, SIDE, SIDE), 3)]
    rows = {key: frame.Steps(by_generator, key, *case) for key in dict.fromkeys(["ganfast", row])}

    def check(found):
        assert found[0].isfinite().all()
        steps = 1 if (row, case[0], case[2]) == ("eager", "channels_last", 1) else 3
        ours, theirs = (rows[key].history[:steps] for key in ("ganfast", row))
        assert frame.distance(ours, theirs) <= BOUND

    measure(rows, make=tuple, check=check, work=work_of(parts, "fp32"))
