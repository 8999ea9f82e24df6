"""A run's directory as the trainer keeps it: made ready, saved to, and read again.

Only the first of several processes reads and writes; what it finds is broadcast.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ganfast.errors import InputError
from ganfast.files import replacing
from ganfast.recipes import trained as recipes
from ganfast.recipes.trained import Trained
from ganfast.training import checkpoint, run_directory
from ganfast.training.distributed import Ranks
from ganfast.training.options import refuse_changes
from ganfast.training.state import RunState

# -- what is resumed ---------------------------------------------------------------------------------------------------


class Resumed:
    """A run that is taken up: its directory, the newest sound checkpoint, and which ones had to be passed over.

    ``manifest`` and ``state`` are None where the run was killed before its first checkpoint: it begins again.
    """

    def __init__(self, path: Path, ranks: Ranks):
        def read():
            run, candidates = run_directory.find(path)
            none = (run, None, None, {})
            return run, run_directory.newest_sound(candidates, torch.device("cpu")) if candidates else none

        self.run, (self.source, self.manifest, self.state, self.damaged) = ranks.from_first(read)

    @property
    def begins_again(self) -> bool:
        return self.manifest is None

    @property
    def notes(self) -> list[str]:
        """Messages for the log."""
        if self.begins_again:
            return [f"{self.run} was stopped before its first checkpoint: it begins again, in the same directory."]
        return list(self.damaged.values())

    def refuse_others(self, about: dict) -> None:
        """``InputError`` where recipe, options or data are not those of the run; ``about`` is the trainer's."""
        stored, place = self.manifest or run_directory.read_options(self.run), self.source or self.run
        name, own = stored.get("recipe", {}).get("name"), about["recipe"]["name"]
        if name != own:
            raise InputError(f"{place} is of recipe {name}, not {own}: train that one (--resume).")
        refuse_changes(stored["recipe"], about["recipe"], str(place))
        refuse_changes(stored.get("options", {}), about["options"], str(place))
        for which, flag in (("data", "--data"), ("data_b", "--data-b")):
            if (stored.get(which) or {}).get("fingerprint") != (about.get(which) or {}).get("fingerprint"):
                raise InputError(f"{place} was trained on other data: give that data ({flag}).")

    def newest(self) -> str:
        """The newest checkpoint of the run that is not damaged; "" where there is none."""
        return next((p.name for p in checkpoint.all_in(self.run)[::-1] if p not in self.damaged), "")

    def is_newest(self) -> bool:
        """Whether the run has nothing after what was read."""
        return self.newest() == ("" if self.begins_again else self.source.name)


# -- what is saved -----------------------------------------------------------------------------------------------------


class Saver:
    """Saves a RunState to a run's directory.

    Args:
        about: recipe, options and data, for options.json and the manifests.
        trained: makes of the state what generator.safetensors holds.
    """

    def __init__(
        self, run: Path, about: dict, keep: int, ranks: Ranks, device: torch.device, trained: Callable[[], Trained]
    ):
        self.run, self.about, self.keep, self.ranks, self.device = run, about, keep, ranks, device
        self.trained = trained
        self.saved: int | None = None  # the step whose checkpoint the directory has

    @contextlib.contextmanager
    def locked(self) -> Iterator[str]:
        """While the directory is this job's alone; yields a warning where that cannot be had, else ""."""
        with contextlib.ExitStack() as stack:
            yield self.ranks.from_first(lambda: stack.enter_context(run_directory.locked(self.run)))

    def prepare(self, state: RunState, resumed: Resumed | None) -> None:
        """The directory made ready: nothing half written in it, nothing after the state's step."""
        if resumed and self.run == resumed.run:
            if not resumed.is_newest():
                raise InputError(f"{self.run} was trained on by another process: resume it again.")
            checkpoint.clean(self.run)
            for directory in filter(Path.exists, resumed.damaged):
                checkpoint.set_aside(directory, "damaged")
            if resumed.begins_again:
                run_directory.empty(self.run)
            else:
                self.write_generator(state)  # a process killed between generator and checkpoint left a newer one
        if resumed and not resumed.begins_again:
            run_directory.cut_stats(resumed.run, self.run, state.step)
        run_directory.write_options(self.run, self.about, self.device)

    def save(self, state: RunState) -> Path:
        """A complete checkpoint, and before it the run's generator.safetensors, which is never older than it."""
        directory = self.run / checkpoint.name(state.step)
        if self.saved == state.step:
            return directory
        state.random = self.ranks.everyone(checkpoint.rng_state())
        if self.ranks.first:
            self.write(state)
        self.saved = state.step
        return directory

    def write(self, state: RunState) -> None:
        self.write_generator(state)
        directory = self.run / checkpoint.name(state.step)
        about = self.about | {"step": state.step, "images": state.loaders[0].position}
        checkpoint.save(directory, state.state_dict(), self.trained(), about, self.keep)

    def write_generator(self, state: RunState) -> None:
        with replacing(self.run / recipes.FILE) as partial:
            recipes.save(self.trained(), partial, data=self.about["data"]["name"], step=str(state.step))

    def rescue(self, state: RunState) -> None:
        """Save where the directory has vanished; in the midst of a step there is nothing that could be saved."""
        self.run.mkdir(parents=True)
        run_directory.write_options(self.run, self.about, self.device)
        if not state.in_step and state.step:
            if not state.finite():
                raise InputError(f"a weight is no longer finite at step {state.step}: start a new run.")
            state.random = [checkpoint.rng_state()]
            self.write(state)

    def go_on(self) -> str:
        """How a run that had to stop goes on, and from where."""
        saved = checkpoint.all_in(self.run)
        if not saved:
            return "start again (nothing had been saved yet)"
        return f"go on from {saved[-1].name} with: ganfast train {self.about['recipe']['name']} --resume {self.run}"
