"""What a person sees of a run: progress bar, log.txt, stats.jsonl, TensorBoard events and losses.png."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ganfast.files import flush, replacing
from ganfast.terminal import Watched
from ganfast.training import run_directory
from ganfast.training.figures import families, headline

TIMES = ("images_per_second", "step_ms", "data_wait_ms", "gpu_memory_mb", "rollbacks")  # are not in losses.png


class Monitor:
    """Opened over a run directory at ``step`` of ``total``; closed when the run ends, however it ends.

    ``batch`` real samples are seen in a step; the progress bar shows losses and the figures that are ``telling``.
    ``tick`` after each step times the steps, without what is done here and just before, a picture or a checkpoint.
    """

    def __init__(
        self, run: Path, step: int, total: int, batch: int, telling: tuple[str, ...] = (), progress: bool = True
    ):
        self.run, self.batch, self.telling = run, batch, telling
        self.extra: dict[str, float] = {}  # further figures of every row
        self.log = open(run / "log.txt", "a", buffering=1, encoding="utf-8")  # noqa: SIM115, closed in __exit__
        self.stats = open(run / "stats.jsonl", "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        self.terminal = Watched()
        interval = 0.2 if self.terminal.isatty() else 15  # a file of logs needs no moving bar
        form = "{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
        self.bar = tqdm(
            total=total, initial=step, mininterval=interval, bar_format=form, dynamic_ncols=True, disable=not progress,
            file=self.terminal,
        )  # fmt: skip
        self.since = (time.perf_counter(), step)  # the last row's end
        self.ticks: list[tuple[float, float]] = []  # (end, seconds) of each step since then
        self.events = None
        try:
            self.events = self.open_events(step)
        except OSError:
            self.__exit__()
            raise
        self.began = time.perf_counter()  # the step under way

    def open_events(self, step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say("No TensorBoard events: tensorboard is not installed (pip install 'ganfast[demo]').")
            return None
        return SummaryWriter(self.run / "tensorboard", purge_step=step + 1)

    def say(self, text: str) -> None:
        """A line for log.txt, and for the terminal above the bar."""
        self.write(self.log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        if not self.bar.disable:
            self.bar.write(text, file=self.terminal)
        self.began = time.perf_counter()

    def write(self, file, text: str) -> None:
        try:
            file.write(text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.name) from error

    def flush(self) -> None:
        """Have the rows on the disk before the checkpoint that follows them."""
        flush(Path(self.stats.name))

    def rewind(self, step: int) -> None:
        """Go on from ``step`` again; stats.jsonl has been cut there."""
        self.stats.close()
        self.stats = open(self.run / "stats.jsonl", "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        if self.events:
            self.events.close()
        self.events = self.open_events(step)
        self.since, self.ticks = (time.perf_counter(), step), []
        self.bar.n = step
        self.bar.refresh()

    def tick(self) -> None:
        """A step has ended, by the host's clock: nothing waits for a device."""
        now = time.perf_counter()
        self.ticks.append((now, now - self.began))
        self.began = now
        self.bar.update()

    def row(self, step: int, images: int, figures: dict[str, float]) -> None:
        """A row of stats.jsonl and TensorBoard: the figures since the last row by name, the pace, and the step's time.

        A row may come some steps late, as figures do from a device: pace and times are those of its own steps.
        """
        before, last = self.since
        own, self.ticks = self.ticks[: step - last], self.ticks[step - last :]
        self.since = (own[-1][0] if own else time.perf_counter(), step)
        pace = (step - last) * self.batch / max(self.since[0] - before, 1e-9)
        times = percentiles([seconds for _, seconds in own])
        figures = {**figures, "images_per_second": round(pace, 1), **times, **self.extra}
        self.write(self.stats, json.dumps({"step": step, "images": images, **figures}) + "\n")
        shown = [name for name in figures if name.startswith("loss_") or name in self.telling]
        numbers = ", ".join(f"{name.replace('_', ' ')} {figures[name]:.3g}" for name in shown)
        self.bar.set_postfix_str(f"{numbers}, {pace:.0f} images/s", refresh=False)
        if self.events:
            for name, value in figures.items():
                self.events.add_scalar(name, value, step)
        self.began = time.perf_counter()

    def gradient_norms(self, step: int, network: str, norms) -> None:
        """A histogram for TensorBoard: the norms of the gradients of ``network``'s parameters, a tensor or a list."""
        if self.events:
            self.events.add_histogram(f"gradient_norms/{network}", np.asarray(norms), step)

    def score(self, step: int, report) -> None:
        """A line and a scalar of TensorBoard: what the curve of a report, a dataclass, shows."""
        name, value, floor = headline(dataclasses.asdict(report))
        self.say(f"Step {step}: {name} {value:.4g}" + (f" (real images {floor:.4g})" if floor is not None else ""))
        if self.events:
            self.events.add_scalar(f"scores/{name}", value, step)
        self.began = time.perf_counter()

    def picture(self, step: int, picture) -> None:
        """uint8 [H, W, C] for TensorBoard."""
        if self.events and picture.shape[2] in (1, 3):
            self.events.add_image("fakes", picture, step, dataformats="HWC")
            self.events.flush()
        self.began = time.perf_counter()

    def plot(self) -> None:
        """Draw losses.png from stats.jsonl."""
        rows = run_directory.read_stats(self.run)
        if not rows:
            return
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            self.say("No losses.png: matplotlib is not installed (pip install 'ganfast[demo]').")
            return
        names = dict.fromkeys(name for row in rows for name in row if name not in ("step", "images"))
        parts = families(name for name in names if not name.startswith(TIMES))
        scores = run_directory.read_scores(self.run)
        count = len(parts) + len(scores)
        figure = Figure(figsize=(8, 2.7 * count), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        for axes, members in zip(panels, parts.values()):
            for name in members:  # a lazy player's figures are in some rows only
                points = [(row["step"], row[name]) for row in rows if name in row]
                axes.plot(*zip(*points), label=name.replace("_", " "), linewidth=1)
            axes.legend(loc="upper right")
            axes.grid(alpha=0.3)
        for axes, (name, points) in zip(panels[len(parts) :], scores.items()):
            steps, values, floors = zip(*points)
            axes.plot(steps, values, marker=".", label=name, linewidth=1)
            if None not in floors:
                axes.plot(steps, floors, "--", label="real images", linewidth=1)
            shown = [*values, *(floor for floor in floors if floor is not None)]
            if 0 < 30 * min(shown) < max(shown):
                axes.set_yscale("log")
            axes.legend(loc="upper right")
            axes.grid(alpha=0.3)
        panels[-1].set_xlabel("step")
        with replacing(self.run / "losses.png") as partial:
            figure.savefig(partial, dpi=110, format="png")
        self.began = time.perf_counter()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self.bar, self.log, self.stats, self.events):
            with contextlib.suppress(OSError):  # said where it was written, or of the last events for TensorBoard
                if each:
                    each.close()


class NoMonitor:
    """The monitor of a process that shows and writes nothing: the first one does, for the whole job."""

    def __init__(self):
        self.extra: dict[str, float] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def say(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass

    def tick(self) -> None:
        pass

    def row(self, step: int, images: int, figures: dict[str, float]) -> None:
        pass

    def gradient_norms(self, step: int, network: str, norms) -> None:
        pass

    def score(self, step: int, report) -> None:
        pass

    def picture(self, step: int, picture) -> None:
        pass

    def plot(self) -> None:
        pass


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The median and the 95th percentile (nearest rank) in milliseconds; nothing of nothing."""
    ordered = sorted(seconds)
    return {f"step_ms_p{p}": round(1e3 * ordered[-(-p * len(ordered) // 100) - 1], 3) for p in (50, 95) if ordered}
