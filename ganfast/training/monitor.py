"""What a person sees of a run: progress bar, log.txt, stats.jsonl, TensorBoard events and losses.png."""

import contextlib
import json
import time
from pathlib import Path

from tqdm import tqdm

from ganfast.terminal import Watched
from ganfast.training import checkpoint, run_directory


class Monitor:
    """Opened over a run directory at ``step`` of ``total``; closed when the run ends, however it ends.

    ``figures`` are the names of the two numbers beside the losses.
    """

    def __init__(self, run: Path, step: int, total: int, batch: int, figures: tuple[str, str], progress: bool = True):
        self.run, self.batch = run, batch
        self.columns = ("loss_d", "loss_g", *figures)
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
        self.since = (time.monotonic(), step)
        self.events = None
        try:
            self.events = self.open_events(step)
        except OSError:
            self.__exit__()
            raise

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

    def write(self, file, text: str) -> None:
        try:
            file.write(text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.name) from error

    def flush(self) -> None:
        """Have the rows on the disk before the checkpoint that follows them."""
        checkpoint.flush(self.stats.name)

    def rewind(self, step: int) -> None:
        """Go on from ``step`` again; stats.jsonl has been cut there."""
        self.stats.close()
        self.stats = open(self.run / "stats.jsonl", "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        if self.events:
            self.events.close()
        self.events = self.open_events(step)
        self.since = (time.monotonic(), step)
        self.bar.n = step
        self.bar.refresh()

    def row(self, step: int, images: int, means: list[float]) -> None:
        """A row of stats.jsonl: means over the steps since the last row, and the pace."""
        now = time.monotonic()
        pace = (step - self.since[1]) * self.batch / max(now - self.since[0], 1e-9)
        self.since = (now, step)
        row = {"step": step, "images": images, **dict(zip(self.columns, means)), "images_per_second": round(pace, 1)}
        self.write(self.stats, json.dumps(row | self.extra) + "\n")
        numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in zip(self.columns, means))
        self.bar.set_postfix_str(f"{numbers}, {pace:.0f} images/s", refresh=False)
        if self.events:
            for name, value in zip((*self.columns, "images_per_second"), (*means, pace)):
                self.events.add_scalar(name, value, step)

    def picture(self, step: int, picture) -> None:
        """uint8 [H, W, C] for TensorBoard."""
        if self.events and picture.shape[2] in (1, 3):
            self.events.add_image("fakes", picture, step, dataformats="HWC")
            self.events.flush()

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
        figure = Figure(figsize=(8, 8), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(3, 1, sharex=True)
        steps = [row["step"] for row in rows]
        for axes, columns in zip(panels, (self.columns[:2], self.columns[2:3], self.columns[3:])):
            for column in columns:
                axes.plot(steps, [row[column] for row in rows], label=column.replace("_", " "), linewidth=1)
            axes.legend(loc="upper right")
            axes.grid(alpha=0.3)
        panels[-1].set_xlabel("step")
        with checkpoint.whole(self.run / "losses.png") as partial:
            figure.savefig(partial, dpi=110, format="png")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self.bar, self.log, self.stats, self.events):
            with contextlib.suppress(OSError):  # said where it was written, or of the last events for TensorBoard
                if each:
                    each.close()
