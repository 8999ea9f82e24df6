"""The mode-collapse table of PacGAN (Lin et al. 2018, arXiv:1712.04086) on mixtures of Gaussians, and its page.

    python bench/modes.py --results FILE [--rows PacGAN2 …] [--data ring8]   trains what FILE lacks, a row at a time
    python bench/modes.py --results FILE --speed                             times the batched training beside others
    python bench/modes.py --render                                           writes docs/modes.md and its pictures

All seeds of a row are one batched process (side_by_side.py). A row is written as soon as it is trained.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import calibrate
import torch
from side_by_side import Game, SideBySide
from store import Results

from ganfast.data.gaussians import MODES, gaussians
from ganfast.metrics.modes import mode_report

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "bench" / "results" / "modes", ROOT / "docs" / "modes.md"

ROWS = {
    "GAN": Game(),
    "unrolled": Game(unroll=5),
    "PacGAN2": Game(packing=2),
    "PacGAN4": Game(packing=4),
    "minibatch discrimination": Game(kernels=16),
    "WGAN-GP": Game("wgan-gp", d_steps=5, penalty=0.1, beta1=0.0, beta2=0.9),
    "r3gan": Game("r3gan", penalty=0.05, beta1=0.0, beta2=0.99),
    "r3gan, twice as long": Game("r3gan", penalty=0.05, beta1=0.0, beta2=0.99, length=2),
    "r3gan, γ 0.005, thrice as long": Game("r3gan", penalty=0.005, beta1=0.0, beta2=0.99, length=3),
}
UPDATES = {"ring8": 5000, "grid25": 10_000}  # of the discriminator, those that an unrolled generator foresees included
EVALUATED, DRAWN = 2500, 400  # samples

# modes, high-quality share, reverse KL: tables 1 and 2 of the paper, ten trials each
PAPER = {
    "ring8": {"GAN": ("6.3 ± 0.5", "98.2 %", "0.45"), "PacGAN2": ("7.9 ± 0.1", "95.6 %", "0.07"),
              "PacGAN4": ("7.8 ± 0.1", "95.9 %", "0.07")},
    "grid25": {"GAN": ("17.3 ± 0.8", "94.8 %", "0.70"), "PacGAN2": ("23.8 ± 0.7", "91.3 %", "0.13"),
               "PacGAN4": ("24.8 ± 0.2", "93.6 %", "0.04")},
}  # fmt: skip
TITLES = {
    "ring8": "Ring: 8 Gaussians, standard deviation 0.01",
    "grid25": "Grid: 25 Gaussians, standard deviation 0.05",
}


def late_linear(progress: float) -> float:
    """The learning rate's factor: 1, and in the second half down to 0."""
    return min(1.0, 2 * (1 - progress))


def measure(name: str, data: str, options) -> dict:
    """Train one row's seeds side by side, and score each: 2,500 samples of the averaged generator."""
    device, run = torch.device(options.device), about()
    centres, std = MODES[data]
    game, seeds = replace(ROWS[name], lr=options.lr), list(range(options.seeds))
    steps = (options.updates or UPDATES[data]) * game.length // game.updates
    side = SideBySide(game, gaussians(data).samples.to(device), seeds, options.width, options.batch)
    began, wall = time.process_time(), time.perf_counter()
    side.train(steps, late_linear if options.lr_decay == "late-linear" else lambda progress: 1.0)
    samples = side.samples(EVALUATED, seed=1000).cpu()
    spent = {"cpu_seconds": time.process_time() - began, "wall_seconds": time.perf_counter() - wall}
    reports = [mode_report(each, centres, std) for each in samples]
    scores = {what: [getattr(r, what) for r in reports] for what in ("modes", "high_quality", "reverse_kl")}
    return {
        "row": name, "data": data, "seeds": seeds, "steps": steps, "width": options.width, "batch": options.batch,
        "lr_decay": options.lr_decay, "game": asdict(game), **scores, **{k: round(v, 1) for k, v in spent.items()},
        **run,
        "samples": " ".join(f"{value:.3f}" for value in samples[0, :DRAWN].flatten().tolist()),
    }  # fmt: skip


# --- speed ------------------------------------------------------------------------------------------------------------


def speed(options, rounds: int = 5, steps: int = 20) -> dict:
    """CPU seconds of a step of all seeds: batched, by the same loop for each seed alone, and by `Trainer` for each.

    In turns; medians, and the quartiles of the neighbours' ratios to the batched step.
    """
    from ganfast.recipes import GAN, WGANGP
    from ganfast.training import Trainer

    points, seeds, width = gaussians("ring8").samples, list(range(options.seeds)), options.width
    recipes = {"GAN": GAN(width=width), "WGAN-GP": WGANGP(width=width // 4, latent_dim=2)}
    found = {}
    for name, recipe in recipes.items():
        together, *apart = (SideBySide(ROWS[name], points, s, width, options.batch) for s in (seeds, *zip(seeds)))
        trainers = [Trainer(recipe, "gaussians:ring8", steps=10**6, batch=options.batch, seed=s) for s in seeds]
        ways = {"batched": [together.step], "same loop": [side.step for side in apart],
                "Trainer": [trainer.advance for trainer in trainers]}  # fmt: skip
        times = [{way: cpu_seconds(runs, steps) for way, runs in ways.items()} for _ in range(rounds + 1)][1:]
        ratios = {way: [t[way] / t["batched"] for t in times] for way in ways}
        found[name] = {
            way: {"seconds": statistics.median(t[way] for t in times), "ratio": statistics.quantiles(ratios[way])}
            for way in ways
        }
    return {"rows": found, "seeds": len(seeds), "width": width, "batch": options.batch, **about()}


def cpu_seconds(runs: list, steps: int) -> float:
    """Of one step of all runs."""
    began = time.process_time()
    for run in runs:
        for _ in range(steps):
            run()
    return (time.process_time() - began) / steps


def about() -> dict:
    environment = calibrate.environment()
    return {key: environment[key] for key in ("revision", "date", "command", "load")}


# --- the page ---------------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Mode coverage: the table of PacGAN

Written by `python bench/modes.py --render` from the files in `bench/results/modes/`; do not edit it by hand.

Two mixtures of Gaussians in the plane show what a GAN leaves out. A sample is of *high quality* within 3 standard
deviations of the nearest centre, a mode is recovered when one such sample falls on it, reverse KL is the divergence of
the shares of the modes from equal ones, in nats. 2,500 samples are scored; figures are means ± standard deviations over
seeds, with the worst seed behind the slash. The paper's are those of Lin et al. 2018 (arXiv:1712.04086), tables 1 and
2, of ten trials at its full length: 400,000 steps at width 400.

Networks are the paper's (`ganfast.models.mlp`): a generator of four hidden layers with BatchNorm and ReLU on a 2-d
normal latent, a discriminator of three maxout layers of half that width with five pieces, weights N(0, 0.02²), batches
of 100. r3gan's generator has no BatchNorm and weights N(0, 1/width). All seeds of a row are trained side by side as one
batched process (`bench/side_by_side.py`; `tests/bench/test_side_by_side.py` holds that they are single trainings).
Every row has as many updates of the discriminator as the others, those that an unrolled generator looks ahead included.
Samples come from the exponential moving average of the generator, decay 0.999 with the trainer's warm-up.
"""
FULL = """
## At full length

The paper's protocol (constant learning rate 1e-4, 400,000 steps, width 400, ten seeds) is for a GPU. Each row is kept
as soon as it is trained, and the same command goes on where it stopped:

    python bench/modes.py --results bench/results/modes/full.json --device cuda --width 400 --updates 400000 \\
        --lr 1e-4 --lr-decay none --seeds 10
"""

HISTORY = """
## History

What was tried on the way to this protocol, with single trainings at width 128:

- Learning rate 1e-3 leaves GAN and PacGAN on the grid below 4 % high quality after 4,000 steps; at 3e-3, falling to 0
  in the second half, GAN had 92 % (on 13 modes) after 6,000: the fall is what sharpens. 6e-3 falling from the start is
  slower (r3gan after 3,000 of 4,000 steps: 18 %, beside 54 %).
- r3gan on the grid after 4,000 steps: γ 0.05 has 25 modes and 68 %, γ 0.01 24 and 71 %, with worse shares of the modes.
- r3gan on the ring, five seeds: γ 0.05 at width 200, twice as long, has 95.0 % in its worst seed; γ 0.005 twice as long
  95.1 %, thrice 97.8 %; γ 0.002 thrice 97.4 %. On the grid the weak penalty loses modes in two of five seeds.
- Weights of the discriminator from N(0, 0.1²) instead of N(0, 0.02²) slow it down, because its biases begin at 0.
- WGAN-GP has λ 0.1, as usual on points: the critic must be steep between narrow modes.
- `torch.autograd.grad` into `.grad` gave wrong updates: fused Adam on a CPU reads gradients of other strides as if they
  had the parameter's. `backward` lays them out; the equality with single trainings is how it was found.
"""


def spread(values: list[float], worst: float, form: str) -> str:
    found = torch.tensor(values, dtype=torch.float64)  # of infinite ones the deviation is nan
    return f"{found.mean():{form}} ± {found.std():{form}} / {worst:{form}}"


def cells(row: dict) -> list[str]:
    game = row["game"]
    return [
        spread(row["modes"], min(row["modes"]), ".1f"),
        spread(row["high_quality"], min(row["high_quality"]), ".1%"),
        spread(row["reverse_kl"], max(row["reverse_kl"]), ".2f"),
        str(row["steps"]),
        f"{game['lr']:g}, β {game['beta1']:g}, {game['beta2']:g}",
        f"{row['cpu_seconds']:.0f}",
        row["revision"],
    ]


HEAD = ("modes", "high quality", "reverse KL", "steps", "Adam", "CPU s", "revision")


def table(rows: dict, data: str) -> list[str]:
    lines = [f"\n### {TITLES[data]}\n", f"| | {' | '.join(HEAD)} | paper: modes | high quality | reverse KL |"]
    lines.append("|---" * (len(HEAD) + 4) + "|")
    for name in ROWS:
        row, paper = rows.get(f"{data}/{name}"), PAPER[data].get(name, ("", "", ""))
        found = cells(row) if row else ["not measured yet", *[""] * (len(HEAD) - 1)]
        lines.append(f"| {name} | {' | '.join([*found, *paper])} |")
    return lines


def speed_table(found: dict) -> list[str]:
    lines = [
        "\n### What training side by side saves\n",
        f"CPU time of a step of all {found['seeds']} seeds at width {found['width']}, in turns; other work ran beside",
        f"it (load {found['load']}), revision {found['revision']}; ratios are medians and quartiles. `Trainer` has",
        "the package's recipe, whose penalty takes no double backward; the same loop is this page's, seed by seed.\n",
        "| | batched | the same loop, each seed alone | over batched | `Trainer`, each seed alone | over batched |",
        "|---|---|---|---|---|---|",
    ]
    for name, ways in found["rows"].items():
        cells = [f"{1e3 * ways['batched']['seconds']:.1f} ms"]
        for way in ("same loop", "Trainer"):
            low, middle, high = ways[way]["ratio"]
            cells += [f"{1e3 * ways[way]['seconds']:.1f} ms", f"{middle:.2f}× ({low:.2f} to {high:.2f})"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def draw(rows: dict, path: Path) -> None:
    """The samples of each row's first seed, with circles of three standard deviations around the centres."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import EllipseCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 * len(ROWS), 3.6), layout="constrained")
    for i, (data, (centres, std)) in enumerate(MODES.items()):
        for j, name in enumerate(ROWS):
            axes = figure.add_subplot(
                len(MODES), len(ROWS), i * len(ROWS) + j + 1, aspect="equal", xticks=[], yticks=[]
            )
            size, reach = 6 * std, 1.4 * float(centres.max())
            axes.add_collection(EllipseCollection(
                size, size, 0, units="xy", offsets=centres, offset_transform=axes.transData, facecolor="none",
                edgecolor="tab:red", linewidth=0.5,
            ))  # fmt: skip
            if found := rows.get(f"{data}/{name}"):
                numbers = [float(word) for word in found["samples"].split()]
                axes.scatter(numbers[::2], numbers[1::2], s=2, linewidths=0, color="tab:blue")
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), title=name.replace(", ", ",\n") if i == 0 else "")
            axes.title.set_fontsize(8)
    FigureCanvasAgg(figure).print_png(path, pil_kwargs={"optimize": True})


def page(name: str, results: dict) -> list[str]:
    environment, rows = results["environment"], results["rows"]
    settings = {(r["width"], r["batch"], len(r["seeds"]), r["lr_decay"]) for r in rows.values()}
    width, batch, seeds, decay = settings.pop() if len(settings) == 1 else sys.exit(f"{name}: rows of other protocols")
    return [
        f"\n## {name}\n",
        f"{environment['cpu']}, {environment['threads']} thread, torch {environment['torch']}; width {width} and "
        f"{width // 2}, batch {batch}, {seeds} seeds, learning rate " + DECAYS[decay] + ".\n",
        f"![Samples of the first seed of each row: ring above, grid below; red circles are three standard deviations]"
        f"(modes/{name}.png)",
        *(line for data in MODES for line in table(rows, data)),
        *(speed_table(results["speed"]) if "speed" in results else []),
    ]


DECAYS = {"late-linear": "constant, in the second half falling to 0", "none": "constant"}


def render(results: Path, target: Path) -> None:
    lines = [INTRODUCTION]
    target.with_suffix("").mkdir(exist_ok=True)
    for path in sorted(results.glob("*.json")):
        found = json.loads(path.read_text())
        draw(found["rows"], target.with_suffix("") / f"{path.stem}.png")
        lines += page(path.stem, found)
    target.write_text("\n".join([*lines, FULL, HISTORY]).replace("\n\n\n", "\n\n"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, help="the results file; what it lacks is trained")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--data", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, help="of the discriminator; a step of unrolled has 6, of WGAN-GP 5")
    parser.add_argument("--width", type=int, default=100, help="of the generator; the discriminator has half")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--lr-decay", choices=DECAYS, default="late-linear")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--speed", action="store_true", help="times the batched training instead")
    parser.add_argument("--render", action="store_true", help="writes the page of all results files instead")
    options = parser.parse_args()
    if options.render:
        render(RESULTS, PAGE)
        return 0
    if not options.results:
        parser.error("give --results FILE or --render")
    torch.set_flush_denormal(True)
    results = Results(options.results)
    results.data["environment"] = results.data["environment"] or calibrate.environment()
    if options.speed:
        results.data["speed"] = speed(options)
        results.write()
        return 0
    for data in options.data:
        for name in options.rows:
            if f"{data}/{name}" not in results.rows:
                row = measure(name, data, options)
                results.add(f"{data}/{name}", row)
                print(data, name, row["modes"], row["high_quality"], f"{row['cpu_seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
