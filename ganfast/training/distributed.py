"""Training by several processes that torchrun started: the rank of this one, and what they exchange."""

import atexit
import os
import time
import uuid
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ganfast.errors import InputError

ASK_EVERY = 10  # steps between two all-reduces of pending signals


class Ranks:
    """This process, ``rank`` of ``count``; alone, and every method without effect, where torchrun did not start it.

    The processes keep the same networks: each has its share of every batch, and gradients are averaged. What decides on
    the future (files, signals) is found by rank 0 and broadcast, or reduced over all.
    """

    def __init__(self, device: torch.device):
        self.count = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
        if self.count > 1 and not dist.is_initialized():
            import torch.distributed.nn.functional  # noqa: F401  imported later it holds the group, whose threads abort at exit
            from torch.distributed.rendezvous import rendezvous

            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            store, rank, count = next(rendezvous("env://"))
            dist.init_process_group(
                backend, store=fresh(store, rank, count), rank=rank, world_size=count,
                device_id=device if device.type == "cuda" else None,
            )  # fmt: skip
            atexit.register(dist.destroy_process_group)
        self.rank = dist.get_rank() if self.count > 1 else 0
        self.answer = None  # to the last question, on its way

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        return self.rank, self.count

    def average(self, numbers: Tensor) -> None:
        """In place, over ranks; on a GPU the stream waits, not this thread."""
        if self.count > 1:
            dist.all_reduce(numbers)
            numbers.div_(self.count)

    def same(self, network: torch.nn.Module) -> None:
        """Give ``network`` the parameters and buffers of rank 0's."""
        if self.count > 1:
            for tensor in network.state_dict().values():
                dense = tensor.contiguous()
                dist.broadcast(dense, 0)
                tensor.copy_(dense)

    def from_first(self, call: Callable):
        """What ``call()`` returns on rank 0; its InputError is raised by all."""
        result = None
        if self.first:
            try:
                result = call()
            except InputError as error:
                result = error
        if self.count > 1:
            shared = [result]
            dist.broadcast_object_list(shared, 0, device=torch.device("cpu"))
            result = shared[0]
        if isinstance(result, InputError):
            raise result
        return result

    def everyone(self, value) -> list:
        """``value`` of each rank, on every rank."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def settle(self) -> None:
        """Nothing is asked any more."""
        if self.answer:
            self.answer[1].wait()
            self.answer = None

    def agree(self, stop: int, step: int) -> int:
        """``stop`` (a signal's number, or 0) of whoever has one: the same at the same step on all ranks.

        The answer to a question comes with the next one, so that nobody waits for it.
        """
        if self.count == 1:
            return stop
        if step % ASK_EVERY:
            return 0
        before, heard = self.answer, 0
        self.settle()
        if before:
            heard = int(before[0])
        numbers = torch.tensor(stop)
        self.answer = numbers, dist.all_reduce(numbers, dist.ReduceOp.MAX, async_op=True)
        return heard


def fresh(store: "dist.Store", rank: int, count: int) -> "dist.Store":
    """A part of ``store`` that is empty, the same for the ``count`` processes that call this now.

    torchrun keeps its store when it starts processes again, and what those before wrote: some would connect to the
    dead. So process 0 offers a name, the others answer it with one of their own, and only an offer that process 0
    closes with that very answer counts.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        answers = [f"{mine}/{other}" for other in range(1, count)]
        store.set("offer", mine)
        store.wait(answers)
        store.set(f"{mine}/closed", " ".join(store.get(answer).decode() for answer in answers))
        return dist.PrefixStore(mine, store)
    while True:
        offer = store.get("offer").decode()
        store.set(f"{offer}/{rank}", mine)
        if store.check([f"{offer}/closed"]) and mine in store.get(f"{offer}/closed").decode().split():
            return dist.PrefixStore(offer, store)
        time.sleep(0.02)


def job() -> dict | None:
    """The torchrun job and how often this machine's agent has started it again; None without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return {
        "id": os.environ["TORCHELASTIC_RUN_ID"],
        "attempt": int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)),
    }


def local_device(name: str) -> str:
    """The device of this process where torchrun started several on a machine: its own GPU."""
    if name in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name
