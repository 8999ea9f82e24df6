"""N processes with 1/N of the batch are one process with all of it."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from training import rank_worker
from training.rank_worker import BATCH, RECIPES, STEPS

from ganfast.training.distributed import ASK_EVERY, Ranks, fresh

pytestmark = pytest.mark.slow
WORKER = Path(rank_worker.__file__)
CLOSE = {"rtol": 1e-8, "atol": 1e-9}  # fp64, after four steps of Adam, which divides by small numbers


def torchrun(count: int, *command: str, timeout: float = 240, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **env}, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def wide():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_alike(found: dict, expected: dict, but=()) -> None:
    assert found.keys() == expected.keys() and len(found) > 10
    for name, value in found.items():
        if not name.endswith(tuple(but)) or not but:
            close = {"rtol": 1e-6, "atol": 1e-6} if name == "sums" else CLOSE  # figures are fp32
            torch.testing.assert_close(
                value, expected[name].to(value.dtype), **close, msg=lambda m, n=name: f"{n}: {m}"
            )


def shard_by_shard(name: str, count: int) -> dict:
    """The same training in one process: gradients of each share of the batch by itself, averaged by hand."""
    step = rank_worker.make(name)
    recipe, generator, discriminator = step.recipe, step.generator, step.discriminator
    noise = torch.Generator().manual_seed(7)
    size, sums = BATCH // count, torch.zeros(4)

    class Share:
        """What a recipe sees of the step."""

        scale = None
        autocast = staticmethod(step.autocast)

        def __init__(self, epsilon):
            self.epsilon = epsilon

        def backward(self, loss):
            loss.backward()

        def uniform(self, _):
            return self.epsilon

    def averaged(network, gradients_of, shares):
        network.zero_grad(set_to_none=False)
        results = [gradients_of(*share) for share in shares]
        for parameter in network.parameters():
            parameter.grad /= count
        return results

    for _ in range(STEPS):
        step.feed.load()
        discriminator.requires_grad_(True)
        for k in range(recipe.d_steps):
            reals = step.feed.batch(k).split(size)
            fakes = [generator(z) for z in torch.randn(BATCH, 3, generator=noise).split(size)]
            drawn = torch.rand(BATCH, generator=noise).split(size) if "wgan" in name else [None] * count

            def of_d(real, fake, epsilon):
                return recipe.discriminator_gradients(discriminator, real, fake.detach(), Share(epsilon))

            figures = averaged(discriminator, of_d, zip(reals, fakes, drawn))
            step.optimizer_d.step()
        discriminator.requires_grad_(False)

        def of_g(real, fake):
            loss = recipe.generator_loss(discriminator, fake, real)
            loss.backward()
            return loss.detach()

        losses = averaged(generator, of_g, zip(reals, fakes))
        step.optimizer_g.step()
        loss_d, *others = torch.stack(figures).mean(0)
        sums += torch.stack([loss_d, torch.stack(losses).mean(), *others])
    nets = {"G": generator, "D": discriminator}
    found = {f"{n}.{key}": value for n, net in nets.items() for key, value in net.state_dict().items()}
    return {**found, "sums": sums}


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_are_one_process(count, tmp_path):
    process = torchrun(count, str(WORKER), str(tmp_path / "found"))
    assert process.returncode == 0, process.stderr
    of_ranks = [torch.load(tmp_path / f"found.{rank}.pt", weights_only=True) for rank in range(count)]
    for name in RECIPES:
        whole, shards = rank_worker.train(rank_worker.make(name)), shard_by_shard(name, count)
        for found in of_ranks:
            assert_alike(found[name, True], whole)
            # each share has its own statistics, which only rank 0 keeps; the loop over shards has those of all
            mine = {**found[name, False], "sums": found[name, False]["sums"][:4]}
            assert_alike(mine, shards, but=("running_mean", "running_var", "num_batches_tracked"))
        assert not torch.allclose(of_ranks[0][name, False]["sums"], whole["sums"], **CLOSE)  # that is something else
    for rank in range(count):  # a process group that lives on has threads that abort the process as it ends
        threads = (tmp_path / f"found.{rank}.threads").read_text()
        assert threads and "gloo" not in threads
    see_each_other([found["layers"] for found in of_ranks])
    hear_each_other([found["heard"] for found in of_ranks])


def see_each_other(of_ranks):
    """Layers see the batches of all ranks, to second order."""
    expected = rank_worker.layers(Ranks(torch.device("cpu")))
    for name, value in expected.items():
        parts = [found[name] for found in of_ranks]
        if name.split()[-1] in ("out", "g", "gg"):
            torch.testing.assert_close(torch.cat(parts), value, **CLOSE, msg=lambda m, n=name: f"{n}: {m}")
        else:
            for part in parts:
                torch.testing.assert_close(part, value, **CLOSE)


def hear_each_other(heard):
    """A signal to one rank is heard by all at the same step."""
    assert all(each == heard[0] for each in heard)
    assert [step for step, number in enumerate(heard[0], 1) if number] == [20 + ASK_EVERY] and max(heard[0]) == 15


def test_processes_that_start_again_do_not_read_what_those_before_wrote():
    """torchrun keeps its store: who comes first finds the addresses of the dead in it."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def part(rank):
        return fresh(dist.TCPStore("127.0.0.1", server.port, is_master=False), rank, 3)

    with ThreadPoolExecutor(3) as pool:
        for attempt in range(3):
            others = [pool.submit(part, rank) for rank in (2, 1)]
            assert not wait(others, 0.3).done  # for process 0, though an earlier one has left its offer
            stores = [part(0), *(other.result(20) for other in others)]
            assert not any(store.check(["address"]) for store in stores)
            stores[2].set("address", str(attempt))
            assert [store.get("address") for store in stores] == [str(attempt).encode()] * 3


def test_synchronised_layers_keep_keys_and_work_alone():
    from ganfast.nn import SyncBatchNorm, synchronize

    _, discriminator = RECIPES["dcgan"].networks((1, 16, 16))
    before = copy.deepcopy(discriminator)
    synchronize(discriminator)
    assert sum(isinstance(m, SyncBatchNorm) for m in discriminator.modules()) == 1
    x = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(discriminator.double()(x), before.double()(x))
    assert discriminator.state_dict().keys() == before.state_dict().keys()
