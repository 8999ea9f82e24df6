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
from training.games import FOUR, load
from training.rank_worker import BATCH, RECIPES, STEPS

from ganfast.data import Spec
from ganfast.training.distributed import ASK_EVERY, Ranks, fresh
from ganfast.training.state import key
from ganfast.training.turn import Turn

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
        if not any(word in name for word in but):
            close = {"rtol": 1e-6, "atol": 1e-6} if "sum of" in name else CLOSE  # shares are fp32
            torch.testing.assert_close(
                value.double(), expected[name].double(), **close, msg=lambda m, n=name: f"{n}: {m}"
            )


def shard_by_shard(name: str, count: int) -> dict:
    """The same training in one process: gradients of each share of the batch by itself, averaged by hand."""
    step = rank_worker.make_step(name)
    state, size = step.state, BATCH // count
    turns = [
        Turn(state.networks, {}, {}, torch.Generator().manual_seed(7), BATCH, slice(r * size, (r + 1) * size),
             lambda: None, lambda numbers: None, lambda rows: rows)
        for r in range(count)
    ]  # fmt: skip
    sums: dict[str, torch.Tensor] = {}
    for _ in range(STEPS):
        load(step)
        figures = {}
        for update in step.updates:
            player, gradients = update.player, state.gradients[key(update.player)]
            for parameter, needs in update.needs:
                parameter.requires_grad_(needs)
            gradients.zero()
            losses = []
            for turn, real in zip(turns, state.loaders[0].batch(update.batch)["images"].split(size)):
                turn.x = real
                losses.append(player.loss(turn))
                if not player.own_gradients:
                    losses[-1].backward(inputs=gradients.parameters)
            gradients.buffer /= count
            state.optimizers[key(player)].step()
            figures[f"loss_{player.name}"] = torch.stack(losses).mean().detach()
            figures[f"grad_norm_{player.name}"] = gradients.norm()
        figures |= {figure: sum(turn._figures[figure] for turn in turns) / count for figure in turns[0]._figures}
        for figure, value in figures.items():
            sums[f"sum of {figure}"] = sums.get(f"sum of {figure}", 0) + value
    nets = state.networks.items()
    return {f"{n}.{each}": value for n, net in nets for each, value in net.state_dict().items()} | sums


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_are_one_process(count, tmp_path):
    process = torchrun(count, str(WORKER), str(tmp_path / "found"))
    assert process.returncode == 0, process.stderr
    of_ranks = [torch.load(tmp_path / f"found.{rank}.pt", weights_only=True) for rank in range(count)]
    for name in RECIPES:
        whole = rank_worker.train(rank_worker.make_step(name))
        for found in of_ranks:
            assert_alike(found[name, True], whole)
        if name in FOUR:
            continue
        shards = shard_by_shard(name, count)
        for found in of_ranks:
            # each share has its own statistics, which only rank 0 keeps; the loop over shards has those of all
            mine = {n: v for n, v in found[name, False].items() if not n.startswith("average")}
            assert_alike(mine, shards, but=("running_mean", "running_var", "num_batches_tracked"))
        one, other = of_ranks[0][name, False]["sum of loss_g"], whole["sum of loss_g"]
        assert not torch.allclose(one, other, **CLOSE)  # that is something else
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

    discriminator = RECIPES["dcgan"].networks({"x": Spec("images", (1, 16, 16))})["D"]
    before = copy.deepcopy(discriminator)
    synchronize(discriminator)
    assert sum(isinstance(m, SyncBatchNorm) for m in discriminator.modules()) == 1
    x = torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(discriminator.double()(x), before.double()(x))
    assert discriminator.state_dict().keys() == before.state_dict().keys()
