"""The training loop."""

import copy
import dataclasses
import functools
import math
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ganfast import models
from ganfast.data import Dataset, Feed, Stream, open_dataset
from ganfast.errors import InputError
from ganfast.recipes import Recipe
from ganfast.training import checkpoint, pictures, run_directory, sampling
from ganfast.training.monitor import Monitor
from ganfast.training.options import TrainOptions, refuse_changes
from ganfast.training.precision import Precision
from ganfast.training.runner import Runner
from ganfast.training.step import Step
from ganfast.training.window import Window

GRID_SEEDS = range(64)  # the latents of every fakes*.png
GRID_POINTS = range(2500)


class Trainer:
    """Train ``recipe`` on ``data``: ``Trainer(DCGAN(width=32), "digits", steps=2000).train()``.

    ``data`` is a source as the command line takes it, or a ``ganfast.data.Dataset``; ``options`` are the fields of
    ``TrainOptions``. Construction opens the data and builds the networks; nothing is written before ``train``.
    Raises ``InputError`` (a ``ValueError``) where data, options and recipe do not fit together.
    """

    def __init__(self, recipe: Recipe, data: str | Dataset, **options):
        self.recipe = recipe
        opts = TrainOptions(data=data.name if isinstance(data, Dataset) else data, **options)
        self.device = opts.torch_device()
        if isinstance(data, str):
            data = open_dataset(data, size=opts.size, channels=opts.channels, skip_bad=opts.skip_bad)
        if data.kind != recipe.data_kind:
            raise InputError(
                f"recipe {recipe.name} needs {recipe.data_kind}, and {data.name} holds {data.kind}: "
                "give other --data or another recipe."
            )
        self.data, self.options = data, opts
        self.total_steps = opts.total_steps(recipe.d_steps)
        torch.manual_seed(opts.seed)
        generator, discriminator = map(self.place, recipe.networks(data.shape))
        average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.networks = {"G": generator.train(), "D": discriminator.train(), "G_ema": average}
        self.feed = Feed(
            Stream(data, opts.batch, opts.seed, opts.flip), recipe.d_steps, self.device, int(opts.gpu_data_gib * 2**30)
        )
        self.precision = Precision(opts.precision, self.device)
        self.update = Step(
            recipe, tuple(self.networks.values()), self.feed, self.precision, opts.seed, opts.ema_decay, opts.lr_decay,
            self.total_steps,
        )  # fmt: skip
        if opts.compile:
            self.update.compile()
        self.runner = Runner(self.update, graph=opts.graph and self.device.type == "cuda")
        self.random = checkpoint.rng_state()  # taken up by train(), whatever drew numbers in between
        self.step = 0
        self.windows: list[Window] = []  # rows of stats.jsonl that are still on their way from the device
        self.run: Path | None = None
        self.resumed: Path | None = None
        self.damaged: dict[Path, str] = {}  # checkpoints that resuming had to pass over, and why
        if opts.resume:
            self.resume(Path(opts.resume))

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        return network.to(self.device, memory_format=torch.channels_last)

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

        Ctrl-C (or SIGTERM) finishes the step, saves a checkpoint, says how to go on and raises ``KeyboardInterrupt``
        (``SystemExit``); a second one does so without saving.
        """
        if self.step >= self.total_steps:
            raise InputError(f"the run has its {self.total_steps} steps already: give more --steps or --kimg.")
        self.run = self.open_run()
        checkpoint.set_rng_state(self.random)
        batch = self.options.batch * self.recipe.d_steps
        with (
            Stop() as stop,
            Monitor(self.run, self.step, self.total_steps, batch, self.update.columns[2:], progress) as monitor,
            self.precision.settings(),
        ):
            self.runner.log = monitor.say
            for said in (*self.damaged.values(), self.describe()):
                monitor.say(said)
            if not (self.run / "reals.png").exists():
                pictures.write_png(self.run / "reals.png", pictures.picture_of(self.reals(), extent=self.extent))
                self.sample(monitor)
            while self.step < self.total_steps and not stop.signal:
                self.advance()
                self.after_step(monitor)
                monitor.bar.update()
            self.finish(monitor, stop)
        stop.raise_again()
        return self.run

    def advance(self) -> None:
        """One training step."""
        self.runner()
        self.step += 1

    def after_step(self, monitor: Monitor) -> None:
        """What is due after this step: a row of numbers, a picture, a checkpoint."""
        opts = self.options
        due = {name: self.step % every == 0 for name, every in
               (("row", opts.log_every), ("sample", opts.sample_every), ("save", opts.checkpoint_every))}  # fmt: skip
        if due["row"]:
            self.windows.append(Window(self.update.sums, self.step, self.images))
            self.update.sums.zero_()
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
            monitor.row(window.step, window.images, self.checked(window))

    def finish(self, monitor: Monitor, stop: "Stop") -> None:
        """The last checkpoint, and where everything lies."""
        saved = self.save(monitor)
        monitor.plot()
        if self.step < self.total_steps:
            monitor.say(
                f"Stopped at step {self.step} of {self.total_steps}; saved {saved}. "
                f"Go on with: ganfast train {self.recipe.name} --resume {self.run}"
            )
            return
        self.sample(monitor)
        monitor.say(f"Done: {self.step} steps, {self.images} samples. Everything lies in {self.run}")

    def checked(self, window: Window) -> list[float]:
        """The window's means; stops the run where a loss is no number."""
        means = window.means()
        if not all(map(math.isfinite, means)):
            last = checkpoint.all_in(self.run)[-1:] if self.run else []
            go_on = f"go on from {last[0]} with a smaller step" if last else "start again with a smaller step"
            raise InputError(
                f"a loss is no longer finite at step {window.step} (D {means[0]}, G {means[1]}): {go_on} (--lr)."
            )
        return means

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
        """fakes-STEP.png, and the same as fakes.png."""
        samples = self.generate(GRID_SEEDS if self.data.kind == "images" else GRID_POINTS)
        picture = pictures.picture_of(samples, extent=self.extent)
        for name in (f"fakes-{self.step:06d}.png", "fakes.png"):
            pictures.write_png(self.run / name, picture)
        monitor.picture(self.step, picture)

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

    # -- saving and going on -------------------------------------------------------------------------------------

    def save(self, monitor: Monitor) -> Path:
        """A complete checkpoint, and the run's generator.safetensors."""
        self.write_rows(monitor, wait=True)
        self.checked(Window(self.update.sums, self.step, self.images))
        self.random = checkpoint.rng_state()
        if not all(p.isfinite().all() for network in self.networks.values() for p in network.parameters()):
            raise InputError(
                f"a weight is no longer finite at step {self.step}, so nothing is saved: start with a smaller --lr."
            )
        state = {
            "step": self.step,
            "position": self.feed.position,
            **self.update.state(),
            "random": self.random,
        }
        directory = self.run / checkpoint.name(self.step)
        about = self.about() | {"step": self.step, "images": self.images}
        checkpoint.save(directory, self.networks, state, about, self.options.keep)
        partial = self.run / ".generator.safetensors.partial"
        models.save(self.networks["G_ema"], partial, recipe=self.recipe.name, data=self.data.name, step=str(self.step))
        partial.replace(self.run / "generator.safetensors")
        return directory

    def resume(self, path: Path) -> None:
        """Take up the state of ``path``, a checkpoint or a run's newest sound one; writes nothing."""
        self.resumed, candidates = run_directory.find(path)
        for directory in candidates:
            try:
                saved = checkpoint.read(directory, self.device)
                break
            except InputError as error:
                if directory is candidates[-1]:
                    raise
                self.damaged[directory] = f"{error} Taking the one before."
        self.restore(directory, *saved)

    def open_run(self) -> Path:
        """A new run directory, or the resumed one where nothing newer than the resumed checkpoint is sound in it."""
        if self.run:  # train() again after an interruption
            return self.run
        for directory in self.damaged:
            directory.rename(directory.with_name(f"damaged-{directory.name}"))
        last = checkpoint.all_in(self.resumed)[-1].name if self.resumed else None
        if last == checkpoint.name(self.step):
            run = self.resumed
        else:
            run = run_directory.create(Path(self.options.outdir), self.label)
        if self.resumed:
            run_directory.cut_stats(self.resumed, run, self.step)
        run_directory.write_options(run, self.about(), self.device)
        return run

    def restore(self, directory: Path, manifest: dict, weights: dict, state: dict) -> None:
        stored, given = manifest.get("recipe", {}), self.about()
        if stored.get("name") != self.recipe.name:
            raise InputError(
                f"{directory} is of recipe {stored.get('name')}, not {self.recipe.name}: train that one (--resume)."
            )
        refuse_changes(stored, given["recipe"], str(directory))
        refuse_changes(manifest.get("options", {}), given["options"], str(directory))
        if manifest.get("data", {}).get("fingerprint") != given["data"]["fingerprint"]:
            raise InputError(
                f"{directory} was trained on other data than {self.options.data}: give that data (--data)."
            )
        try:
            for name, network in self.networks.items():
                network.load_state_dict(weights[name])
            self.step, self.feed.position = int(state["step"]), int(state["position"])
            self.update.load_state(state, self.step)
            self.random = state["random"]
            checkpoint.set_rng_state(self.random)
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise checkpoint.damaged(directory, error) from None


class Stop:
    """Remembers the first SIGINT or SIGTERM; a second one interrupts at once."""

    def __enter__(self):
        self.signal = None
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {each: signal.signal(each, self.handle) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def handle(self, number, frame):
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def raise_again(self) -> None:
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)
