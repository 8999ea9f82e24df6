"""Going back after a loss or a weight that is NaN or infinite."""

from collections.abc import Callable

import torch

from ganfast.errors import InputError
from ganfast.training import checkpoint, run_directory
from ganfast.training.saving import Saver
from ganfast.training.state import RunState

TRIES = 3  # rollbacks before a run gives up, unless it gets past the step that failed


class NotFinite(InputError):
    """A loss or a weight at ``step`` is NaN or infinite; ``what`` says which."""

    def __init__(self, what: str, step: int, advice: str):
        super().__init__(f"{what} is no longer finite at step {step}: {advice}.")
        self.what, self.step = what, step


def roll_back(
    state: RunState, restore: Callable[[dict], None], saver: Saver, monitor, error: NotFinite, wanted: bool
) -> None:
    """Take ``state`` back to the newest sound checkpoint, or raise ``error`` where that is not ``wanted`` or no help.

    Networks, averages, optimisers, the recipe's tensors and the step come from the checkpoint. Positions in the data
    and random generators stay where they are, so that other batches and other noise follow; rows of stats.jsonl after
    the checkpoint are cut, as they are when a run is resumed.
    """
    ranks, rollbacks = saver.ranks, state.rollbacks
    saved = ranks.from_first(lambda: checkpoint.all_in(saver.run)[::-1])
    if not wanted or not saved:
        raise error
    rollbacks["tries"] = rollbacks["tries"] + 1 if error.step <= rollbacks["furthest"] else 1
    rollbacks["furthest"] = max(rollbacks["furthest"], error.step)
    if rollbacks["tries"] > TRIES:
        raise InputError(
            f"{error.what} is no longer finite at step {error.step}, and {TRIES} rollbacks did not get past it: "
            "start a new run with a smaller --lr."
        )
    rollbacks["count"] += 1
    source, _, found, damaged = ranks.from_first(lambda: run_directory.newest_sound(saved, torch.device("cpu")))
    for each, why in damaged.items():
        monitor.say(why)
        if ranks.first:
            checkpoint.set_aside(each, "damaged")
    restore(found | {
        "positions": [loader.position for loader in state.loaders],
        "noise": state.noise.get_state(),
        "random": ranks.everyone(checkpoint.rng_state()),
        "rollbacks": dict(rollbacks),
    })  # fmt: skip
    saver.saved = state.step
    if ranks.first:
        run_directory.cut_stats(saver.run, saver.run, state.step)
    monitor.rewind(state.step)
    monitor.extra["rollbacks"] = rollbacks["count"]
    monitor.say(
        f"{error.what} is no longer finite at step {error.step}: going on from {source} with other data and "
        f"other noise (rollback {rollbacks['count']} of this run)."
    )
