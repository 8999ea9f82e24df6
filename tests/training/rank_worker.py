"""What each process of the tests of distribution runs: `torchrun rank_worker.py OUT`, where OUT.rank.pt gets results.

Everything is in fp64, so that what differs by rounding differs by 1e-12.
"""

import atexit
import copy
import os
import sys
from pathlib import Path

import torch

from ganfast.data import Dataset, Feed, Stream
from ganfast.nn import MinibatchDiscrimination, MinibatchStddev, SyncBatchNorm, synchronize
from ganfast.recipes import DCGAN, WGANGP
from ganfast.training.distributed import Ranks
from ganfast.training.precision import Precision
from ganfast.training.step import Step

CPU = torch.device("cpu")
BATCH, STEPS = 12, 4
RECIPES = {
    "dcgan": DCGAN(width=2, latent_dim=3, lr=1e-2),
    "dcgan merged": DCGAN(width=2, latent_dim=3, lr=1e-2, merge=True),
    "wgan-gp": WGANGP(width=2, latent_dim=3, d_steps=2, lr=1e-2),
    "wgan-gp resnet": WGANGP(width=2, latent_dim=3, d_steps=1, lr=1e-2, architecture="resnet"),
}


class WideFeed(Feed):
    def batch(self, k):
        return super().batch(k).double()


def make(name, share=(0, 1), sync=False, average=lambda numbers: None) -> Step:
    """A step from the same weights for every share."""
    recipe = RECIPES[name]
    torch.manual_seed(1)
    images = torch.randint(256, (30, 16, 16, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    networks = [network.double() for network in recipe.networks((1, 16, 16))]
    networks.append(copy.deepcopy(networks[0]).eval().requires_grad_(False))
    if sync:
        for network in networks:
            synchronize(network)
    feed = WideFeed(Stream(Dataset("noise", images), BATCH, seed=3, flip=True), recipe.d_steps, CPU, share=share)
    step = Step(recipe, tuple(networks), feed, Precision("fp32", CPU), seed=7, average=average)
    step.sums = step.sums.double()
    return step


def train(step: Step, steps: int = STEPS) -> dict:
    """The weights of G, D and the average after some steps, and the sums of losses."""
    for _ in range(steps):
        step.feed.load()
        step()
    nets = {"G": step.generator, "D": step.discriminator}
    found = {f"{n}.{key}": value for n, net in nets.items() for key, value in net.state_dict().items()}
    return {**found, "sums": step.sums}


def layers(ranks: Ranks) -> dict:
    """Outputs, gradients and second gradients of the layers that see all ranks; rank r has rows r, r + 1, … of x."""
    torch.manual_seed(0)
    x, maps = torch.randn(12, 5), torch.randn(12, 4, 2, 2)
    cases = {
        "discrimination": (MinibatchDiscrimination(5, 3, 2), x),
        "stddev": (MinibatchStddev(4), maps),
        "stddev of all": (MinibatchStddev(None, 2), maps),
        "norm": (SyncBatchNorm(4), maps),
        "norm of vectors": (SyncBatchNorm(5, affine=False, momentum=None), x),
    }
    found = {}
    for name, (layer, whole) in cases.items():
        layer = layer.double()
        mine = whole.double().chunk(ranks.count)[ranks.rank].clone().requires_grad_()
        weights = torch.linspace(0.5, 2, 12).double().chunk(ranks.count)[ranks.rank]
        out = layer(mine)
        loss = (out.flatten(1).pow(3).sum(1) * weights).sum()  # a sample counts by its place in the whole batch
        (g,) = torch.autograd.grad(loss, mine, create_graph=True)
        (gg,) = torch.autograd.grad(g.pow(2).sum(), mine)
        buffers = {f"{name} {key}": value for key, value in layer.named_buffers()}
        found |= {f"{name} out": out.detach(), f"{name} g": g.detach(), f"{name} gg": gg, **buffers}
    return found


def write_threads() -> None:
    """Names of this process's threads, to OUT.rank.threads."""
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    Path(f"{sys.argv[1]}.{os.environ['RANK']}.threads").write_text("".join(names))


def main() -> None:
    atexit.register(write_threads)  # before Ranks does: at the very end
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    ranks = Ranks(CPU)
    found = {"layers": layers(ranks)}
    for name in RECIPES:
        for sync in (False, True):
            step = make(name, ranks.share, sync, ranks.average)
            found[name, sync] = train(step)
            ranks.average(found[name, sync]["sums"])
    heard = [ranks.agree(15 if ranks.rank == 1 and step == 20 else 0, step) for step in range(1, 51)]
    ranks.settle()
    found["heard"] = heard
    torch.save(found, f"{sys.argv[1]}.{ranks.rank}.pt")


if __name__ == "__main__":
    main()
