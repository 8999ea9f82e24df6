"""What a trainer keeps on the disk: its run directory, complete checkpoints, and how it takes one up again.

Only the first of several processes reads and writes; what it finds is told to all.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from ganfast import models
from ganfast.errors import InputError
from ganfast.training import checkpoint, run_directory
from ganfast.training.options import refuse_changes

# -- the run directory -------------------------------------------------------------------------------------------------


def choose_run(trainer) -> Path:
    """A new run directory, or the resumed one where nothing newer than the resumed checkpoint is sound in it."""
    if trainer.resumed and newest(trainer) == checkpoint.name(trainer.step):
        return trainer.resumed
    return run_directory.create(Path(trainer.options.outdir), trainer.label)


def newest(trainer) -> str:
    """The newest sound checkpoint of the resumed run."""
    return [path for path in checkpoint.all_in(trainer.resumed) if path not in trainer.damaged][-1].name


@contextlib.contextmanager
def locked(trainer) -> Iterator[str]:
    """While the run directory is this job's alone; yields a warning where that cannot be had, else ""."""
    with contextlib.ExitStack() as stack:
        yield trainer.ranks.from_first(lambda: stack.enter_context(run_directory.locked(trainer.run)))


def prepare(trainer) -> None:
    """The run directory made ready: nothing half written in it, nothing after the trainer's step."""
    run, resumed = trainer.run, trainer.resumed
    if run == resumed:
        if newest(trainer) != checkpoint.name(trainer.step):
            raise InputError(f"{run} was trained on by another process: resume it again.")
        checkpoint.clean(run)
        for directory in filter(Path.exists, trainer.damaged):
            checkpoint.set_aside(directory, "damaged")
        write_generator(trainer)  # a process killed between generator and checkpoint left a newer one
    if resumed:
        run_directory.cut_stats(resumed, run, trainer.step)
    run_directory.write_options(run, trainer.about(), trainer.device)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def save(trainer) -> Path:
    """A complete checkpoint, and before it the run's generator.safetensors, which is never older than it."""
    directory = trainer.run / checkpoint.name(trainer.step)
    if trainer.saved == trainer.step:
        return directory
    trainer.random = checkpoint.rng_state()
    states = trainer.ranks.everyone(trainer.random)
    if trainer.ranks.first:
        write(trainer, directory, states)
    trainer.saved = trainer.step
    return directory


def write(trainer, directory: Path, random_states: list) -> None:
    """Generator and checkpoint; ``random_states`` are those of each process."""
    state = {
        "step": trainer.step,
        "position": trainer.feed.position,
        **trainer.update.state(),
        "random": random_states,
        "rollback": trainer.rollback.state(),
    }
    about = trainer.about() | {"step": trainer.step, "images": trainer.images}
    write_generator(trainer)
    checkpoint.save(directory, trainer.networks, state, about, trainer.options.keep)


def write_generator(trainer) -> None:
    about = {"recipe": trainer.recipe.name, "data": trainer.data.name, "step": str(trainer.step)}
    with checkpoint.whole(trainer.run / "generator.safetensors") as partial:
        models.save(trainer.networks["G_ema"], partial, **about)


def rescue(trainer) -> None:
    """Save where the run directory has vanished; in the midst of a step there is nothing that could be saved."""
    trainer.run.mkdir(parents=True)
    run_directory.write_options(trainer.run, trainer.about(), trainer.device)
    if not trainer.in_step and trainer.step:
        if trainer.weights_bad():
            raise trainer.not_finite("a weight", trainer.step)
        write(trainer, trainer.run / checkpoint.name(trainer.step), [checkpoint.rng_state()])


# -- going on ----------------------------------------------------------------------------------------------------------


def resume(trainer, path: Path) -> None:
    """Take up the state of ``path``, a checkpoint or a run's newest sound one; writes nothing."""

    def read():
        run, candidates = run_directory.find(path)
        return run, run_directory.newest_sound(candidates, torch.device("cpu"))

    trainer.resumed, (*saved, trainer.damaged) = trainer.ranks.from_first(read)
    restore(trainer, *saved)


def restore(trainer, directory: Path, manifest: dict, weights: dict, state: dict) -> None:
    """Put what a checkpoint holds into ``trainer``, in place; ``InputError`` where it is of another run."""
    refuse_others(trainer, directory, manifest)
    try:
        for name, network in trainer.networks.items():
            network.load_state_dict(weights[name])
        trainer.step, trainer.feed.position = int(state["step"]), int(state["position"])
        trainer.update.load_state(state, trainer.step)
        trainer.rollback.load_state(state["rollback"])
        if trainer.ranks.rank < len(state["random"]):  # else there are more processes than there were
            trainer.random = state["random"][trainer.ranks.rank]
            checkpoint.set_rng_state(trainer.random)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise checkpoint.damaged(directory, error) from None


def refuse_others(trainer, directory: Path, manifest: dict) -> None:
    """``InputError`` where recipe, options or data are not those of the checkpoint's manifest."""
    stored, given = manifest.get("recipe", {}), trainer.about()
    if stored.get("name") != trainer.recipe.name:
        raise InputError(
            f"{directory} is of recipe {stored.get('name')}, not {trainer.recipe.name}: train that one (--resume)."
        )
    refuse_changes(stored, given["recipe"], str(directory))
    refuse_changes(manifest.get("options", {}), given["options"], str(directory))
    if manifest.get("data", {}).get("fingerprint") != given["data"]["fingerprint"]:
        raise InputError(f"{directory} was trained on other data than {trainer.options.data}: give that data (--data).")
