"""What each process of the tests of distribution runs: `torchrun rank_worker.py OUT`, where OUT.rank.pt gets results.

Everything is in fp64, so that what differs by rounding differs by 1e-12.
"""

import atexit
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchrun starts this file by its path
from training.games import FOUR, images, load, make, sources_of

from ganfast.nn import MinibatchDiscrimination, MinibatchStddev, SPADEAct, SyncBatchNorm, synchronize
from ganfast.nn.ranks import gather
from ganfast.recipes import RECIPES as PACKAGE
from ganfast.training.distributed import Ranks
from ganfast.training.step import Step

CPU = torch.device("cpu")
BATCH, STEPS = 12, 4
RECIPES = {
    "dcgan": PACKAGE["dcgan"](width=2, latent_dim=3, lr=1e-2),
    "dcgan merged": PACKAGE["dcgan"](width=2, latent_dim=3, lr=1e-2, merge=True),
    "wgan-gp": PACKAGE["wgan-gp"](width=2, latent_dim=3, d_steps=2, lr=1e-2),
    "wgan-gp resnet": PACKAGE["wgan-gp"](width=2, latent_dim=3, d_steps=1, lr=1e-2, architecture="resnet"),
    **FOUR,
}


def make_step(name, share=(0, 1), sync=False, average=lambda numbers: None) -> Step:
    """A step from the same weights for every share."""
    recipe = RECIPES[name]
    sources = [images(30, seed=2 + k) for k in range(len(sources_of(recipe)))]
    layout = lambda network: synchronize(network.double()) if sync else network.double()  # noqa: E731
    return make(
        recipe, sources, BATCH, share=share, double=True, place=layout, flip=True, average=average,
        gather=lambda rows: gather(rows).flatten(0, 1),
    )  # fmt: skip


def train(step: Step, average=lambda numbers: None) -> dict:
    """What STEPS steps have made of it: all weights, the recipe's state, and sums of figures."""
    for _ in range(STEPS):
        load(step)
        step()
        step.state.step += 1
    average(step.state.means.buffer)
    sums = {
        f"sum of {figure}": value
        for names, part in step.state.means.parts.items()
        for figure, value in zip(names, step.state.means.buffer[part])
    }
    nets = step.state.networks | {f"average {name}": net for name, net in step.state.averages.items()}
    weights = {f"{n}.{key}": value for n, net in nets.items() for key, value in net.state_dict().items()}
    return {**weights, **step.state.tensors, **sums}


class OfItself(SPADEAct):
    def forward(self, x):
        return super().forward(x, x)


def layers(ranks: Ranks) -> dict:
    """Outputs, gradients and second gradients of the layers that see all ranks; rank r has rows r, r + 1, … of x."""
    torch.manual_seed(0)
    x, maps = torch.randn(12, 5), torch.randn(12, 4, 2, 2)
    cases = {
        "discrimination": (MinibatchDiscrimination(5, 3, 2), x),
        "stddev": (MinibatchStddev(4), maps),
        "stddev of all": (MinibatchStddev(None, 2), maps),
        "norm": (SyncBatchNorm(4), maps),
        "norm by pixel": (OfItself(4, 4, 3, activation="tanh"), maps),
        "norm of vectors": (SyncBatchNorm(5, affine=False, momentum=None), x),
    }
    results = {}
    for name, (layer, whole) in cases.items():
        layer = layer.double()
        mine = whole.double().chunk(ranks.count)[ranks.rank].clone().requires_grad_()
        weights = torch.linspace(0.5, 2, 12).double().chunk(ranks.count)[ranks.rank]
        out = layer(mine)
        loss = (out.flatten(1).pow(3).sum(1) * weights).sum()  # a sample counts by its place in the whole batch
        (g,) = torch.autograd.grad(loss, mine, create_graph=True)
        (gg,) = torch.autograd.grad(g.pow(2).sum(), mine)
        buffers = {f"{name} {key}": value for key, value in layer.named_buffers()}
        results |= {f"{name} out": out.detach(), f"{name} g": g.detach(), f"{name} gg": gg, **buffers}
    return results


def write_threads() -> None:
    """Names of this process's threads, to OUT.rank.threads."""
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    Path(f"{sys.argv[1]}.{os.environ['RANK']}.threads").write_text("".join(names))


def main() -> None:
    atexit.register(write_threads)  # before Ranks does: at the very end
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    ranks = Ranks(CPU)
    results = {"layers": layers(ranks)}
    for name in RECIPES:
        for sync in (False, True):
            results[name, sync] = train(make_step(name, ranks.share, sync, ranks.average), ranks.average)
    results["heard"] = [ranks.agree(15 if ranks.rank == 1 and step == 20 else 0, step) for step in range(1, 51)]
    ranks.settle()
    torch.save(results, f"{sys.argv[1]}.{ranks.rank}.pt")


if __name__ == "__main__":
    main()
