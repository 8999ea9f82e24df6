"""The training loop."""

import copy
import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ganfast import models
from ganfast.data import Dataset, Feed, Stream, open_dataset
from ganfast.errors import InputError
from ganfast.nn import synchronize
from ganfast.recipes import Recipe
from ganfast.training import checkpoint, faults, pictures, run_directory, sampling, saving
from ganfast.training.distributed import Ranks
from ganfast.training.monitor import Monitor, Silence
from ganfast.training.options import TrainOptions
from ganfast.training.precision import Precision
from ganfast.training.rollback import NotFinite, Rollback
from ganfast.training.runner import Runner
from ganfast.training.step import Step
from ganfast.training.stop import Stop, raise_for
from ganfast.training.window import Window

GRID_SEEDS = range(64)  # the latents of every fakes*.png
GRID_POINTS = range(2500)


class Trainer:
    """Train ``recipe`` on ``data``: ``Trainer(DCGAN(width=32), "digits", steps=2000).train()``.

    ``data`` is a source as the command line takes it, or a ``ganfast.data.Dataset``; ``options`` are the fields of
    ``TrainOptions``. Construction opens the data and builds the networks; nothing is written before ``train``.
    Raises ``InputError`` (a ``ValueError``) where data, options and recipe do not fit together.
    """

    @faults.room_explained()
    def __init__(self, recipe: Recipe, data: str | os.PathLike | Dataset, **options):
        if not isinstance(recipe, Recipe):
            raise InputError(f"recipe must be made, as in Trainer(DCGAN(), ...), got {recipe!r}.")
        self.recipe = recipe
        opts = TrainOptions(data=data.name if isinstance(data, Dataset) else data, **options)
        self.device = opts.torch_device()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.ranks = Ranks(self.device)
        if opts.batch % self.ranks.count:
            raise InputError(
                f"batch {opts.batch} cannot be shared by {self.ranks.count} processes: give a multiple (--batch)."
            )
        if not isinstance(data, Dataset):
            with faults.moved_explained(opts):
                data = open_dataset(opts.data, size=opts.size, channels=opts.channels, skip_bad=opts.skip_bad)
        for name, given, own in zip(("channels", "size"), (opts.channels, opts.size), data.shape):
            if given not in (None, own):
                raise InputError(f"{name} is {own} in {data.name}, got {given}: leave it out (--{name}).")
        if data.kind != recipe.data_kind:
            raise InputError(
                f"recipe {recipe.name} needs {recipe.data_kind}, and {data.name} holds {data.kind}: "
                "give other --data or another recipe."
            )
        self.data, self.options = data, opts
        self.total_steps = opts.total_steps(recipe.d_steps)
        torch.manual_seed(opts.seed)
        networks = recipe.networks(data.shape)
        models.describe(networks[0])  # what checkpoints say of it; now, and not at the first of them
        generator, discriminator = map(self.place, networks)
        torch.manual_seed(opts.seed + self.ranks.rank)  # what networks draw in training, such as dropout
        average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.networks = {"G": generator.train(), "D": discriminator.train(), "G_ema": average}
        self.feed = Feed(
            Stream(data, opts.batch, opts.seed, opts.flip), recipe.d_steps, self.device,
            int(opts.gpu_data_gib * 2**30), self.ranks.share,
        )  # fmt: skip
        self.precision = Precision(opts.precision, self.device, opts.deterministic)
        self.update = Step(
            recipe, tuple(self.networks.values()), self.feed, self.precision, opts.seed, opts.ema_decay, opts.lr_decay,
            self.total_steps, self.ranks.average,
        )  # fmt: skip
        if opts.compile:
            self.update.compile()
        self.runner = Runner(self.update, graph=opts.graph and self.device.type == "cuda")
        self.random = checkpoint.rng_state()  # taken up by train(), whatever drew numbers in between
        self.step = 0
        self.rollback = Rollback(opts.on_nan)
        self.in_step = False  # or stopped in the midst of one, which leaves networks that nothing should go on from
        self.failed = False
        self.saved: int | None = None  # the step whose checkpoint the run directory has
        self.windows: list[Window] = []  # rows of stats.jsonl that are still on their way from the device
        self.run: Path | None = None
        self.resumed: Path | None = None
        self.damaged: dict[Path, str] = {}  # checkpoints that resuming had to pass over, and why
        begun = opts.resume or self.ranks.from_first(lambda: run_directory.of_job(Path(opts.outdir), self.total_steps))
        if begun:
            saving.resume(self, Path(begun))

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        network = network.to(self.device, memory_format=torch.channels_last)
        self.ranks.same(network)
        return synchronize(network) if self.options.sync_bn else network

    @property
    def label(self) -> str:
        """What the name of a run directory says after its number."""
        return f"{self.recipe.name}-{self.data.name}"

    @property
    def images(self) -> int:
        """Real samples the discriminator has seen."""
        return self.feed.position

    def about(self) -> dict:
        """What a run is, for options.json and the checkpoints."""
        options = dataclasses.asdict(self.options) | {"resume": None}
        data = {"name": self.data.name, "count": len(self.data), "shape": list(self.data.shape)}
        return {
            "recipe": {"name": self.recipe.name, **dataclasses.asdict(self.recipe)},
            "options": options,
            "data": data | {"fingerprint": self.data.fingerprint(), "skipped": len(self.data.skipped)},
        }

    # -- the loop ------------------------------------------------------------------------------------------------

    def train(self, progress: bool = True) -> Path:
        """Train to the last step; returns the run directory.

        Ctrl-C (or SIGTERM, SIGHUP) finishes the step, saves a checkpoint, says how to go on and raises
        ``KeyboardInterrupt`` (``SystemExit``); a second one does so without saving. What cannot be written, memory that
        is not there and a loss that is no number raise ``InputError``; what was saved before stays.
        """
        if self.step >= self.total_steps:
            raise InputError(f"the run has its {self.step} steps already: give more --steps or --kimg.")
        if self.failed:
            raise InputError(f"this trainer has failed: make another one (resume={str(self.run)!r}).")
        again, self.run = self.run is not None, self.run or self.ranks.from_first(lambda: saving.choose_run(self))
        with saving.locked(self) as unlocked, faults.explained(self):
            checkpoint.set_rng_state(self.random)
            if not again:  # else it goes on after an interruption
                self.ranks.from_first(lambda: saving.prepare(self))
                self.saved = self.step if self.run == self.resumed else None
            with Stop(self.ranks.count > 1) as stop, self.monitor(progress) as monitor, self.precision.settings():
                for said in (*self.damaged.values(), *filter(None, [unlocked]), self.describe()):
                    monitor.say(said)
                self.damaged = {}
                told = self.loop(monitor, stop)
        raise_for(told)
        return self.run

    def monitor(self, progress: bool) -> Monitor | Silence:
        """Only the first process says and writes something."""
        if not self.ranks.first:
            return Silence()
        batch = self.options.batch * self.recipe.d_steps
        return Monitor(self.run, self.step, self.total_steps, batch, self.update.columns[2:], progress)

    def loop(self, monitor: Monitor, stop: Stop) -> int:
        """Steps until the last, or until a signal to any process: its number."""
        self.runner.log = monitor.say
        self.rollback.count_in(monitor)
        if self.ranks.first and not (self.run / "reals.png").exists():
            pictures.write_png(self.run / "reals.png", pictures.picture_of(self.reals(), extent=self.extent))
            self.sample(monitor)
        told = 0
        while True:
            try:
                while self.step < self.total_steps and not told:
                    self.advance()
                    monitor.tick()
                    self.after_step(monitor)
                    monitor.bar.update()
                    told = self.ranks.agree(stop.signal, self.step)
                self.ranks.settle()
                self.finish(monitor)
                return told
            except NotFinite as error:
                self.rollback(self, monitor, error)

    def advance(self) -> None:
        """One training step."""
        self.in_step = True
        self.runner()
        self.step += 1
        self.in_step = False

    def after_step(self, monitor: Monitor) -> None:
        """What is due after this step: a row of numbers, a picture, a checkpoint."""
        opts = self.options
        due = {name: self.step % every == 0 for name, every in
               (("row", opts.log_every), ("sample", opts.sample_every), ("save", opts.checkpoint_every))}  # fmt: skip
        if due["row"]:
            self.write_rows(monitor, wait=self.rollback.on)  # where it goes back must not depend on the device's pace
            self.ranks.average(self.update.sums)
            self.windows.append(Window(self.update.sums, self.step, self.images, self.feed.waited))
            self.update.sums.zero_()
            self.feed.waited = 0.0
        if not self.rollback.on:
            self.write_rows(monitor)
        if self.step == self.total_steps:
            return  # finish() does the rest
        if due["sample"]:
            self.sample(monitor)
        if due["save"]:
            self.save(monitor)
            monitor.plot()

    def write_rows(self, monitor: Monitor, wait: bool = False) -> None:
        """The rows that have arrived; all of them with ``wait``."""
        while self.windows and (wait or self.windows[0].arrived()):
            window = self.windows.pop(0)
            monitor.row(window.step, window.images, self.figures(window))

    def finish(self, monitor: Monitor) -> None:
        """The last checkpoint, after all else, so that who has it has all; and where everything lies."""
        self.settle(monitor)
        monitor.plot()
        if self.step == self.total_steps:
            self.sample(monitor)
        saved = self.save(monitor)
        if self.step < self.total_steps:
            monitor.say(
                f"Stopped at step {self.step} of {self.total_steps}; saved {saved}. "
                f"Go on with: ganfast train {self.recipe.name} --resume {self.run}"
            )
            return
        monitor.say(f"Done: {self.step} steps, {self.images} samples. Everything lies in {self.run}")

    def figures(self, window: Window) -> dict[str, float]:
        """What a row of stats.jsonl says of the steps of a window."""
        figures = dict(zip(self.update.columns, self.checked(window)))
        figures["data_wait_ms"] = round(1e3 * window.waited / window.count, 3)
        if self.device.type == "cuda":
            figures["gpu_memory_mb"] = torch.cuda.max_memory_reserved(self.device) >> 20
        return figures

    def checked(self, window: Window) -> list[float]:
        """The window's means; stops the run where a loss is no number."""
        means = window.means()
        if not all(map(math.isfinite, means)):
            raise self.not_finite(f"a loss (D {means[0]}, G {means[1]})", window.step)
        return means

    def not_finite(self, what: str, step: int) -> NotFinite:
        advice = "start a new run with a smaller --lr"
        if checkpoint.all_in(self.run):
            advice += f", or {faults.go_on(self)} --on-nan rollback"
        return NotFinite(what, step, advice)

    # -- samples -------------------------------------------------------------------------------------------------

    def generate(self, seeds: Sequence[int], truncation: float | None = None) -> Tensor:
        """Samples of the averaged generator, one per seed, on the CPU."""
        return sampling.sample(self.networks["G_ema"], seeds, truncation, self.device)

    def reals(self) -> Tensor:
        """As many real samples as a grid shows."""
        count = min(len(GRID_SEEDS if self.data.kind == "images" else GRID_POINTS), len(self.data))
        return Stream(self.data, count, self.options.seed).next()

    @functools.cached_property
    def extent(self) -> float:
        """Half the side of the map that shows points."""
        return 1.2 * self.data.samples[:10_000].abs().max().item() if self.data.kind == "points" else 1.0

    def sample(self, monitor: Monitor) -> None:
        """fakes-STEP.png, and the same as fakes.png; how large the gradients of each parameter are."""
        if not self.ranks.first:
            return
        samples = self.generate(GRID_SEEDS if self.data.kind == "images" else GRID_POINTS)
        picture = pictures.picture_of(samples, extent=self.extent)
        for name in (f"fakes-{self.step:06d}.png", "fakes.png"):
            pictures.write_png(self.run / name, picture)
        monitor.picture(self.step, picture)
        for name, gradients in (("G", self.update.gradients_g), ("D", self.update.gradients_d)):
            monitor.gradient_norms(self.step, name, torch.stack([p.grad.norm() for p in gradients.parameters]).cpu())

    def describe(self) -> str:
        """One paragraph on what is about to happen."""
        shape = "×".join(map(str, self.data.shape))
        sizes = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (self.networks["G"], self.networks["D"])]
        skipped = f" ({len(self.data.skipped)} files that cannot be decoded left out)" if self.data.skipped else ""
        start = f"from step {self.step} " if self.step else ""
        return (
            f"{self.recipe.name} on {self.data.name}: {len(self.data)} {self.data.kind} of {shape}{skipped}; "
            f"generator {sizes[0]:.2f} M and discriminator {sizes[1]:.2f} M parameters; "
            f"{start}to step {self.total_steps}, batch {self.options.batch}, {self.options.precision} on {self.device}"
            + (f"; run directory {self.run}" if self.run else "")
        )

    # -- saving ------------------------------------------------------------------------------------------------------

    def save(self, monitor: Monitor) -> Path:
        """A complete checkpoint."""
        self.settle(monitor)
        monitor.flush()
        return saving.save(self)

    def settle(self, monitor: Monitor) -> None:
        """All rows are written, and all that would be saved is finite."""
        self.write_rows(monitor, wait=True)
        self.ranks.average(self.update.sums)
        self.checked(Window(self.update.sums, self.step, self.images))
        self.check_weights()

    def check_weights(self) -> None:
        """Of all ranks: running statistics are each one's own."""
        bad = self.weights_bad().float()
        self.ranks.average(bad)
        if bad:
            raise self.not_finite("a weight", self.step)

    def weights_bad(self) -> Tensor:
        """Whether a number that this process would save is not finite, as a scalar on the device."""
        values = [value for network in self.networks.values() for value in network.state_dict().values()]
        return ~torch.stack([value.isfinite().all() for value in values]).all()
