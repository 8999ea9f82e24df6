"""The training loop."""

import dataclasses
import math
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ganfast.data import Dataset, Loader, Sampler, match, open_dataset
from ganfast.data.options import data_fields, parse_load_size, parse_size, size_word
from ganfast.data.sources import place_of
from ganfast.errors import InputError
from ganfast.nn import synchronize
from ganfast.nn.ranks import gather
from ganfast.recipes import Recipe, Trained
from ganfast.recipes.base import batches_per_step
from ganfast.training import checkpoint, faults, pictures, run_directory, sampling, scoring
from ganfast.training.cuda_graph import CUDAGraphs
from ganfast.training.distributed import Ranks
from ganfast.training.monitor import Monitor, NoMonitor
from ganfast.training.options import TrainOptions
from ganfast.training.precision import Precision
from ganfast.training.rollback import NotFinite, roll_back
from ganfast.training.running_means import Reading
from ganfast.training.saving import Resumed, Saver
from ganfast.training.showing import Show
from ganfast.training.state import RunState
from ganfast.training.step import Step
from ganfast.training.stop import Stop, raise_for


def needs_two(module: torch.nn.Module) -> bool:
    """Whether it is a BatchNorm that has no statistics of a batch of one."""
    return isinstance(module, _BatchNorm) and not getattr(module, "of_one", False)


@dataclasses.dataclass
class Row:
    """A row of stats.jsonl that is on its way from the device: the figures of the steps up to ``step``."""

    reading: Reading
    step: int
    images: int
    waited: float
    steps: int


class Trainer:
    """Train ``recipe`` on ``data``: ``Trainer(DCGAN(width=32), "digits", steps=2000).train()``.

    ``data`` is a source as the command line takes it, a ``ganfast.data.Dataset``, or a pair of them for unpaired
    translation; ``options`` are the fields of ``TrainOptions``. Construction opens the data and builds the networks;
    nothing is written before ``train``. Raises ``InputError`` (a ``ValueError``) where data, options and recipe do not
    fit together.
    """

    @faults.room_explained()
    def __init__(self, recipe: Recipe, data, **options):
        if not isinstance(recipe, Recipe):
            raise InputError(f"recipe must be made, as in Trainer(DCGAN(), ...), got {recipe!r}.")
        self.recipe = recipe
        given = list(data) if isinstance(data, (tuple, list)) else [data]
        names = [each.name if isinstance(each, Dataset) else each for each in given]
        opts = TrainOptions(data=names[0], **({"data_b": names[1]} if names[1:] else {}), **options)
        self.options = opts = dataclasses.replace(
            opts,
            batch=opts.batch or recipe.batch,
            lr_decay=opts.lr_decay or recipe.lr_decay,
            maps=opts.maps or (bool(opts.data_b) and any(c.kind == "maps" for c in recipe.columns.values())),
        )
        self.device = opts.torch_device()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.ranks = Ranks(self.device)
        if opts.resume == "latest":
            run = self.ranks.from_first(lambda: run_directory.resumable(Path(opts.outdir), recipe.name))
            self.options = opts = dataclasses.replace(opts, resume=str(run))
        if opts.batch % self.ranks.count:
            raise InputError(
                f"batch {opts.batch} cannot be shared by {self.ranks.count} processes: give a multiple (--batch)."
            )
        self.sources = self.open(given)
        self.specs = match(recipe.name, recipe.columns, self.sources)
        per_step = batches_per_step(recipe.players())
        self.total_steps = opts.total_steps(per_step)
        self.stages = recipe.stages(self.total_steps)
        self.ends = list(accumulate(stage.steps for stage in self.stages))
        self.total_steps = self.ends[-1]
        wanted = [dict.fromkeys(source.column_of(c) for c in recipe.columns.values() if c.source == k)
                  for k, source in enumerate(self.sources)]  # fmt: skip
        loaders = [
            Loader(Sampler(source, opts.batch, opts.seed + k, opts.flip, crop=True), per_step, self.device,
                   int(opts.gpu_data_gib * 2**30), self.ranks.share, columns)
            for k, (source, columns) in enumerate(zip(self.sources, wanted))
        ]  # fmt: skip
        precision = Precision(opts.precision, self.device, opts.deterministic)
        self.state = RunState(loaders, precision, opts.seed, opts.ema_decay, self.place)
        torch.manual_seed(opts.seed)
        self.begin_stage(0)
        self.judge = scoring.of_run(opts, self.sources[0], self.trained) if opts.score_every else None
        torch.manual_seed(opts.seed + self.ranks.rank)  # what networks draw in training, such as dropout
        self.random = checkpoint.rng_state()  # taken up by train(), whatever drew numbers in between
        self.failed = False
        self.rows: list[Row] = []  # those that are still on their way
        self.row_step = 0  # the last step of the last row
        self.saver: Saver | None = None
        self.resumed: Resumed | None = None
        begun = opts.resume or self.ranks.from_first(lambda: run_directory.of_job(Path(opts.outdir), self.total_steps))
        if begun:
            self.resume(Path(begun))

    # -- what is trained ---------------------------------------------------------------------------------------------

    def open(self, given: list) -> list[Dataset]:
        """The data sets, one for each source that the recipe's columns name."""
        opts = self.options
        paired = any(column.column in ("targets", "maps") for column in self.recipe.columns.values())
        if opts.data_b is not None and len(given) == 1 and not paired:
            given = [*given, opts.data_b]
        opened = []
        named = [*given, opts.data_b] if paired and opts.data_b is not None and len(given) == 1 else given
        self.places = {which: None if isinstance(source, Dataset) else place_of(os.fspath(source))
                       for which, source in zip(("data", "data_b"), named)}  # fmt: skip
        for source in given:
            if not isinstance(source, Dataset):
                with faults.moved_explained(opts):
                    source = open_dataset(
                        os.fspath(source), targets=opts.data_b if paired else None, **data_fields(opts)
                    )
            if source.kind == "images":
                channels, *sides = source.shape
                load = sides if source.whole is None else source.whole.shape[1:]
                for name, wanted, own, word in (
                    ("channels", opts.channels, channels, channels),
                    ("size", parse_size(opts.size), tuple(sides), size_word(*sides)),
                    ("load_size", parse_load_size(opts.load_size, tuple(sides)), tuple(load), size_word(*load)),
                ):
                    if wanted not in (None, own):
                        got = getattr(opts, name)
                        raise InputError(f"{name} is {word} in {source.name}, got {got}: leave it out (--{name}).")
            opened.append(source)
        return opened

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        network = network.to(self.device, memory_format=torch.channels_last)
        self.ranks.same(network)
        return synchronize(network) if self.options.sync_bn else network

    def begin_stage(self, stage: int) -> None:
        """Build the networks of a stage, and its step."""
        opts, recipe = self.options, self.recipe
        self.state.begin(self.stages[stage].game, self.specs, stage)
        norms = (module for network in self.state.networks.values() for module in network.modules())
        if opts.batch == self.ranks.count and any(needs_two(module) for module in norms):
            raise InputError(
                f"batch must be at least {2 * opts.batch}, because BatchNorm needs two samples in each process, got "
                f"{opts.batch} (--batch)."
            )
        self.trained = Trained(
            self.state.game, self.specs, self.state.averages, (recipe, self.total_steps, stage)
        ).eval()  # fmt: skip
        self.show = Show(self.trained, self.sources, opts.seed, self.state.networks)
        self.update = Step(
            self.state, opts.lr_decay, self.total_steps, self.ranks.average,
            lambda rows: gather(rows).flatten(0, 1),
        )  # fmt: skip
        if opts.compile:
            self.update.compile()
        self.run_step = CUDAGraphs(self.update, graph=opts.graph and self.device.type == "cuda")

    def stage_of(self, step: int) -> int:
        """The stage that the step after ``step`` belongs to."""
        return next((k for k, end in enumerate(self.ends) if step < end), len(self.ends) - 1)

    def next_stage(self, monitor) -> None:
        """From the end of a stage to the next: its networks are new, but for what carries over."""
        stage = self.state.stage + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed + 1_000_003 * stage)
            self.begin_stage(stage)
        self.run_step.log = monitor.say
        monitor.say(f"Stage {stage + 1} of {len(self.stages)}: {self.networks_in_words()}.")

    def restore(self, state: dict) -> None:
        """Take up what a checkpoint holds, of whatever stage."""
        if int(state["stage"]) != self.state.stage:
            with torch.random.fork_rng(devices=[]):
                self.begin_stage(int(state["stage"]))
        self.state.load_state_dict(state)
        self.rows.clear()
        self.row_step = self.state.step - self.state.step % self.options.log_every
        if self.ranks.rank < len(self.state.random):  # else there are more processes than there were
            self.random = self.state.random[self.ranks.rank]
            checkpoint.set_rng_state(self.random)

    def resume(self, path: Path) -> None:
        """Take up the state of ``path``, a checkpoint or a run's newest sound one; writes nothing."""
        self.resumed = Resumed(path, self.ranks)
        self.resumed.refuse_others(self.about())
        if self.resumed.begins_again:
            return
        try:
            self.restore(self.resumed.state)
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise checkpoint.damaged(self.resumed.source, error) from None

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def run(self) -> Path | None:
        """The run directory, once there is one."""
        return self.saver and self.saver.run

    @property
    def label(self) -> str:
        """What the name of a run directory says after its number."""
        return "-".join([self.recipe.name, *dict.fromkeys(source.name for source in self.sources)])

    @property
    def images(self) -> int:
        """Real samples that the networks have seen."""
        return self.state.loaders[0].position

    def about(self) -> dict:
        """What a run is, for options.json and the checkpoints."""
        found = {
            "recipe": {"name": self.recipe.name, **self.recipe.options()},
            "options": dataclasses.asdict(self.options) | {"resume": None},
            "total_steps": self.total_steps,
        }
        for which, data in zip(("data", "data_b"), self.sources):
            found[which] = {
                "name": data.name,
                "source": self.places[which],
                "count": len(data),
                "kind": data.kind,
                "shape": list(data.shape),
                "columns": list(data.columns),
                "fingerprint": data.fingerprint(),
                "skipped": len(data.skipped),
            }
        if len(self.places) > len(self.sources):  # the pairs of two places are one data set
            found["data_b"] = {"source": self.places["data_b"]}
        return found

    def networks_in_words(self) -> str:
        sizes = [(name, sum(p.numel() for p in net.parameters())) for name, net in self.state.networks.items()]
        return "networks " + ", ".join(f"{name} {size / 1e6:.2f} M" for name, size in sizes) + " parameters"

    def describe(self) -> str:
        """One paragraph on what is about to happen."""
        held = []
        for data in self.sources:
            shape = "×".join(map(str, data.shape))
            skipped = f" ({len(data.skipped)} files that cannot be decoded left out)" if data.skipped else ""
            held.append(f"{data.name}: {len(data)} {data.kind} of {shape}{skipped}")
        start = f"from step {self.step} " if self.step else ""
        return (
            f"{self.recipe.name} on {' and '.join(held)}; {self.networks_in_words()}; "
            f"{start}to step {self.total_steps}, batch {self.options.batch}, {self.options.precision} on {self.device}"
            + (f"; run directory {self.run}" if self.run else "")
        )

    def data_notes(self) -> list[str]:
        """What was noticed when the data was read, a sentence each."""
        return [note for data in self.sources for note in data.notes]

    # -- the loop ----------------------------------------------------------------------------------------------------

    def train(self, progress: bool = True) -> Path:
        """Train to the last step; returns the run directory.

        Ctrl-C (or SIGTERM, SIGHUP) finishes the step, saves a checkpoint, says how to go on and raises
        ``KeyboardInterrupt`` (``SystemExit``); a second one does so without saving. What cannot be written, memory that
        is not there and a loss that is NaN or infinite raise ``InputError``; what was saved before stays.
        """
        self.refuse_finished()
        if self.failed:
            raise InputError(f"this trainer has failed: make another one (resume={str(self.run)!r}).")
        again = self.saver is not None  # it goes on after an interruption
        if not again:
            beside = self.ranks.from_first(self.beside)
            run = self.ranks.from_first(self.choose_run)
            self.saver = Saver(run, self.about(), self.options.keep, self.ranks, self.device, lambda: self.trained)
        saver, resumed = self.saver, self.resumed
        self.failed = True  # unless it ends well
        with saver.locked() as unlocked, faults.explained(saver, self.state, self.options):
            checkpoint.set_rng_state(self.random)
            if not again:
                self.ranks.from_first(lambda: saver.prepare(self.state, resumed))
                saver.saved = self.step if resumed and saver.run == resumed.run and not resumed.begins_again else None
            with Stop(self.ranks.count > 1) as stop, self.monitor(progress) as monitor, self.state.precision.settings():
                notes = [] if again else [*(resumed.notes if resumed else ()), *filter(None, [beside])]
                for said in (*notes, *filter(None, [unlocked]), self.describe(), *self.data_notes()):
                    monitor.say(said)
                stopped_by = self.loop(monitor, stop)
        self.failed = False
        raise_for(stopped_by)
        return saver.run

    def refuse_finished(self) -> None:
        if self.step >= self.total_steps:
            run = (self.resumed and self.resumed.run) or self.run or "the run"
            raise InputError(
                f"{run} is finished, it has its {self.step} steps: give more --steps or --kimg to train on, or leave "
                "--resume out to start a new run."
            )

    def beside(self) -> str:
        """What is to be known before a new run directory is made; "" where nothing is, or none is made."""
        if not self.resumed:
            return run_directory.beside(Path(self.options.outdir), self.about())
        if self.resumed.is_newest():
            return ""
        return f"{self.resumed.run} has newer checkpoints and stays as it is; this starts a new run."

    def choose_run(self) -> Path:
        """A new run directory, or the resumed one where nothing newer than the resumed checkpoint is sound in it."""
        if self.resumed and self.resumed.is_newest():
            return self.resumed.run
        return run_directory.create(Path(self.options.outdir), self.label)

    def monitor(self, progress: bool) -> Monitor | NoMonitor:
        """Only the first process says and writes something."""
        if not self.ranks.first:
            return NoMonitor()
        batch = self.options.batch * self.state.loaders[0].per_step
        return Monitor(self.run, self.step, self.total_steps, batch, self.recipe.telling, progress)

    def loop(self, monitor, stop: Stop) -> int:
        """Steps until the last, or until a signal to any process: its number."""
        self.run_step.log = monitor.say
        if self.state.rollbacks["count"]:
            monitor.extra["rollbacks"] = self.state.rollbacks["count"]
        if self.ranks.first and not (self.run / "reals.png").exists():
            pictures.write_png(self.run / "reals.png", self.show.reals())
            self.sample(monitor)
        stopped_by = 0
        while True:
            try:
                while self.step < self.total_steps and not stopped_by:
                    while self.stage_of(self.step) > self.state.stage:  # another --steps may have moved the ends
                        self.next_stage(monitor)
                    self.advance()
                    monitor.tick()
                    self.after_step(monitor)
                    stopped_by = self.ranks.agree(stop.signal, self.step)
                self.ranks.settle()
                self.finish(monitor)
                return stopped_by
            except NotFinite as error:
                roll_back(self.state, self.restore, self.saver, monitor, error, self.options.on_nan == "rollback")

    def advance(self) -> None:
        """One training step."""
        self.run_step()

    def after_step(self, monitor) -> None:
        """What is due after this step: a row of numbers, a picture, a checkpoint."""
        opts, rollback = self.options, self.options.on_nan == "rollback"
        due = {name: self.step % every == 0 for name, every in
               (("row", opts.log_every), ("sample", opts.sample_every), ("save", opts.checkpoint_every),
                ("score", opts.score_every or math.inf))}  # fmt: skip
        if due["row"]:
            self.write_rows(monitor, wait=rollback)  # where it goes back must not depend on the device's pace
            self.rows.append(self.take_row())
        if not rollback:
            self.write_rows(monitor)
        if self.step == self.total_steps:
            return  # finish() does the rest
        if due["sample"]:
            self.sample(monitor)
        if due["score"]:
            self.score(monitor)
        if due["save"]:
            self.save(monitor)
            monitor.plot()

    def take_row(self) -> Row:
        """The figures since the last row, on their way to the host."""
        means, loaders = self.state.means, self.state.loaders
        self.ranks.average(means.buffer)
        waited = sum(loader.waited for loader in loaders)
        row = Row(means.read(), self.step, self.images, waited, max(self.step - self.row_step, 1))
        means.zero()
        for loader in loaders:
            loader.waited = 0.0
        self.row_step = self.step
        return row

    def write_rows(self, monitor, wait: bool = False) -> None:
        """The rows that have arrived; all of them with ``wait``."""
        while self.rows and (wait or self.rows[0].reading.arrived()):
            row = self.rows.pop(0)
            figures = self.checked(row.reading, row.step)
            figures["data_wait_ms"] = round(1e3 * row.waited / row.steps, 3)
            if self.device.type == "cuda":
                figures["gpu_memory_mb"] = torch.cuda.max_memory_reserved(self.device) >> 20
            monitor.row(row.step, row.images, figures)

    def finish(self, monitor) -> None:
        """The last checkpoint, after all else, so that who has it has all; and where everything lies."""
        self.settle(monitor)
        if self.step == self.total_steps:
            self.sample(monitor)
            self.score(monitor)
        monitor.plot()
        saved = self.save(monitor)
        if self.step < self.total_steps:
            monitor.say(
                f"Stopped at step {self.step} of {self.total_steps}; saved {saved}. "
                f"Go on with: ganfast train {self.recipe.name} --resume {self.run}"
            )
            return
        monitor.say(f"Done: {self.step} steps, {self.images} samples. Everything lies in {self.run}")

    def checked(self, reading: Reading, step: int) -> dict[str, float]:
        """The means of some steps; stops the run where one is NaN or infinite."""
        means = reading.means()
        bad = [f"{name} {value}" for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise self.not_finite(f"a figure ({', '.join(bad)})", step)
        return means

    def not_finite(self, what: str, step: int) -> NotFinite:
        advice = "start a new run with a smaller --lr"
        if checkpoint.all_in(self.run):
            advice += f", or {self.saver.go_on()} --on-nan rollback"
        return NotFinite(what, step, advice)

    # -- samples and checkpoints -------------------------------------------------------------------------------------

    def generate(self, seeds: Sequence[int], truncation: float | None = None) -> Tensor:
        """Samples of the averaged networks, one per seed, on the CPU."""
        return sampling.sample(self.trained, seeds, truncation, sampling.fill(self.trained, seeds))

    def sample(self, monitor) -> None:
        """fakes-STEP.png, and the same as fakes.png; how large the gradients of each parameter are."""
        if not self.ranks.first:
            return
        picture = self.show.picture()
        for name in (f"fakes-{self.step:06d}.png", "fakes.png"):
            pictures.write_png(self.run / name, picture)
        monitor.picture(self.step, picture)
        for name, gradients in self.state.gradients.items():
            monitor.gradient_norms(self.step, name, torch.stack([view.norm() for view in gradients.views]).cpu())

    def score(self, monitor) -> None:
        """Rows of metric-*.jsonl: scores of the averaged networks, which draw from no random state of the run's."""
        if self.judge is None or not self.ranks.first:
            return
        samples = scoring.draw(self.trained, self.judge.samples, progress=False)
        for metric, report in self.judge.reports(samples).items():
            scoring.keep(self.run, metric, report, self.options.data, len(samples), self.step)
            monitor.score(self.step, report)

    def save(self, monitor) -> Path:
        """A complete checkpoint."""
        self.settle(monitor)
        monitor.flush()
        saved = self.saver.save(self.state)
        self.random = self.state.random[self.ranks.rank]
        return saved

    def settle(self, monitor) -> None:
        """All rows are written, and all that would be saved is finite."""
        self.write_rows(monitor, wait=True)
        self.ranks.average(self.state.means.buffer)
        self.checked(self.state.means.read(), self.step)
        bad = (~self.state.finite()).float()  # of all ranks: running statistics are each one's own
        self.ranks.average(bad)
        if bad:
            raise self.not_finite("a weight", self.step)
