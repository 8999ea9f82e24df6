"""Going back after a loss or a weight that is no number."""

import torch

from ganfast.errors import InputError
from ganfast.training import checkpoint, run_directory, saving

TRIES = 3  # rollbacks before a run gives up, unless it gets past the step that failed


class NotFinite(InputError):
    """A loss or a weight at ``step`` is no number; ``what`` says which."""

    def __init__(self, what: str, step: int, advice: str):
        super().__init__(f"{what} is no longer finite at step {step}: {advice}.")
        self.what, self.step = what, step


class Rollback:
    """What ``--on-nan`` says, and how often it was done.

    A rollback takes networks, average, optimisers and step from the newest sound checkpoint. The position in the data
    and the random generators stay where they are, so that other batches and other noise follow; rows of stats.jsonl
    after the checkpoint are cut, as they are when a run is resumed.
    """

    def __init__(self, on_nan: str):
        self.on = on_nan == "rollback"
        self.count, self.furthest, self.tries = 0, 0, 0

    def state(self) -> dict:
        return {"count": self.count, "furthest": self.furthest, "tries": self.tries}

    def load_state(self, state: dict) -> None:
        self.count, self.furthest, self.tries = state["count"], state["furthest"], state["tries"]

    def count_in(self, monitor) -> None:
        """Rows after a rollback say how many there were."""
        if self.count:
            monitor.extra["rollbacks"] = self.count

    def __call__(self, trainer, monitor, error: NotFinite) -> None:
        """Take ``trainer`` back, or raise ``error`` where that is not asked for or does not help."""
        ranks = trainer.ranks
        saved = ranks.from_first(lambda: checkpoint.all_in(trainer.run)[::-1])
        if not self.on or not saved:
            raise error
        self.tries = self.tries + 1 if error.step <= self.furthest else 1
        self.furthest = max(self.furthest, error.step)
        if self.tries > TRIES:
            raise InputError(
                f"{error.what} is no longer finite at step {error.step}, and {TRIES} rollbacks did not get past it: "
                "start a new run with a smaller --lr."
            )
        self.count += 1
        *found, state, damaged = ranks.from_first(lambda: run_directory.newest_sound(saved, torch.device("cpu")))
        for each, why in damaged.items():
            monitor.say(why)
            if ranks.first:
                checkpoint.set_aside(each, "damaged")
        now = {
            "position": trainer.feed.position,
            "noise": trainer.update.noise.get_state(),
            "random": ranks.everyone(checkpoint.rng_state()),
            "rollback": self.state(),
        }
        saving.restore(trainer, *found, state | now)
        trainer.windows.clear()
        trainer.saved = trainer.step
        if ranks.first:
            run_directory.cut_stats(trainer.run, trainer.run, trainer.step)
        monitor.rewind(trainer.step)
        self.count_in(monitor)
        monitor.say(
            f"{error.what} is no longer finite at step {error.step}: going on from {found[0]} with other data and "
            f"other noise (rollback {self.count} of this run)."
        )
