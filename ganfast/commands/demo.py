"""``ganfast demo xy``: why gradient descent-ascent turns in circles, as numbers and as a film."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ganfast.commands import xy_game
from ganfast.errors import InputError
from ganfast.files import replacing

FRAMES = 60  # of the film
VIEW = 3.0  # half the side of a panel at most, in units of the start's distance from 0
MOST = 2000  # steps: √2 to that power is still a number


@dataclass(kw_only=True)
class XYGame:
    """Min over x, max over y of x·y by gradient steps, averaging and extragradient: a table, xy.png and xy.gif."""

    rate: float = 0.1
    """the step size α of both players, above 0 and below 1"""
    steps: int = 200
    """updates of each player"""
    outdir: Path = Path("demo")
    """the folder to write to"""

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise InputError(f"--rate must be above 0 and below 1, where extragradient converges, got {self.rate}.")
        if not 10 <= self.steps <= MOST:
            raise InputError(f"--steps must be from 10 to {MOST}, got {self.steps}.")

    def run(self) -> None:
        from PIL import Image

        outcomes = xy_game.all_ways(self.rate, self.steps)
        frames = draw(outcomes)
        try:
            self.outdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.outdir} cannot be made ({error.strerror}): give another --outdir.") from None
        still, film = self.outdir / "xy.png", self.outdir / "xy.gif"
        with replacing(still) as partial:
            frames[-1].save(partial, "png", optimize=True)
        palette = frames[-1].quantize(64, method=Image.Quantize.MAXCOVERAGE)
        first, *others = [frame.quantize(palette=palette, dither=0) for frame in frames]
        times = [50] * len(others) + [2000]  # ms: the last one stays
        with replacing(film) as partial:
            first.save(partial, "gif", save_all=True, append_images=others, duration=times, loop=0)
        print(f"min over x, max over y of x·y: {self.steps} steps of α = {self.rate:g}\n\n{table(outcomes)}\n")
        print(f"wrote {still} and {film}")


def table(outcomes: list[xy_game.Outcome]) -> str:
    """A line for each method."""
    lines = [f"{'method':<15}{'|start|':>9}{'|end|':>11}   {'theory':<18}measured"]
    for each in outcomes:
        theory, measured = (
            f"×{value:.5f} a step" if each.kind == "factor" else f"t^{value:.2f}"
            for value in (each.theory, each.measured)
        )
        lines.append(f"{each.name:<15}{each.radius[0]:>9.3g}{each.radius[-1]:>11.4g}   {theory:<18}{measured}")
    return "\n".join(lines)


def draw(outcomes: list[xy_game.Outcome]) -> list:
    """The film as Pillow images: four panels whose paths grow over the arrows of the gradient field (−y, x)."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "demo xy draws with matplotlib, which is not installed: pip install 'ganfast[demo]'."
        ) from None
    from PIL import Image

    side = 1.1 * min(VIEW, max(each.radius.max() for each in outcomes))
    figure = Figure(figsize=(6, 6.2), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    ticks = np.linspace(-side, side, 13)[1:-1]
    x, y = np.meshgrid(ticks, ticks)
    moving = []
    for axes, each in zip(figure.subplots(2, 2).flat, outcomes):
        axes.quiver(x, y, -y, x, color="0.75", width=0.004)
        axes.plot(0, 0, "+", color="black")
        axes.set(xlim=(-side, side), ylim=(-side, side), aspect="equal", xlabel="x", ylabel="y", title=each.name)
        (line,) = axes.plot([], [], color="tab:blue", linewidth=1.2)
        (dot,) = axes.plot([], [], "o", color="tab:red", markersize=5)
        moving.append((axes, each.path, line, dot))
    canvas.draw()  # once: only lines and dots are drawn anew
    background = canvas.copy_from_bbox(figure.bbox)
    frames = []
    steps = len(outcomes[0].path) - 1
    for step in np.linspace(0, steps, min(FRAMES, steps + 1)).round().astype(int):
        canvas.restore_region(background)
        for axes, path, line, dot in moving:
            line.set_data(*path[: step + 1].T)
            dot.set_data(*path[step : step + 1].T)
            axes.draw_artist(line)
            axes.draw_artist(dot)
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return frames
