"""Every unconditional recipe, trained for a minute or so on the built-in digits, and scored.

python bench/classics.py               train and score what its results lack, then write docs/classics.md
python bench/classics.py --only lsgan  that one anew
python bench/classics.py --render      write the page alone
"""

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

from store import revision

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, PICTURE = (
    ROOT / "bench/results/recipes/digits.json",
    ROOT / "docs/classics.md",
    ROOT / "docs/recipes/classics.png",
)
IMAGES = "--data digits --size 16 --width 24 --steps 1500 --lr-decay linear"
RECIPES = {  # what differs from the defaults
    "gan": "--latent-dim 100 --width 256 --lr 2e-4 --beta1 0.5 --real-target 0.9",
    "dcgan": "--real-target 0.9",
    "lsgan": "",
    "hinge": "--architecture dcgan --d-steps 2",
    "f-gan": "--divergence pearson-chi2",
    "wgan": "--lr 5e-4 --d-steps 2",
    "wgan-gp": "--lr 5e-4 --d-steps 2",
    "ns-gp": "--penalty-weight 1",
    "dragan": "--penalty-weight 1",
    "r3gan": "--lr 1e-3 --width 16",
    "pacgan": "--real-target 0.9",
    "improved": "",
    "ebgan": "",
    "unrolled": "--unroll 2 --real-target 0.9",
    "adagan": "--components 2",
    "chekhov": "--states 2",
}
ROWS = 2  # of eight samples in the picture, for each recipe


def options(name: str) -> list[str]:
    """The later of two equal options counts, as on the command line."""
    found: dict[str, str] = {}
    words = f"{IMAGES} {RECIPES[name]}".split()
    for flag, value in zip(words[::2], words[1::2]):
        found[flag] = value
    return [word for pair in found.items() for word in pair]


def ganfast(*words: str, cwd: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([sys.executable, "-m", "ganfast", *words], cwd=cwd, env=env, check=True)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(name: str, folder: Path) -> dict:
    """Train and score one recipe; what is kept of it."""
    words, began = ["train", name, *options(name)], cpu_seconds()
    ganfast(*words, "--outdir", "runs", "--log-every", "100", "--sample-every", "100000", cwd=folder)
    seconds = cpu_seconds() - began
    run = max((folder / "runs").glob(f"*-{name}-digits"))
    ganfast("evaluate", str(run), "--samples", "898", cwd=folder)
    scores, classes = (
        json.loads((run / f"metric-{each}.jsonl").read_text().splitlines()[-1]) for each in ("lenet", "classes")
    )
    keep_picture(name, run / "fakes.png")
    return {
        "command": " ".join(["ganfast", *words]),
        "cpu_seconds": round(seconds, 1),
        "frechet": scores["values"]["frechet-lenet"],
        "floor": scores["floors"]["frechet-lenet"],
        "recall": scores["values"]["recall-lenet"],
        "confidence": classes["fake_confidence"],
        "shares": classes["fake_shares"],
        "revision": revision(),
        "date": datetime.date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
    }


def keep_picture(name: str, path: Path) -> None:
    """The first rows of a run's picture, in their place of the picture of all."""
    from PIL import Image

    strip = Image.open(path).convert("L")
    width, height = strip.size[0], strip.size[0] * ROWS // 8
    gap, place = 12, list(RECIPES).index(name)
    size = (2 * width + gap, (len(RECIPES) + 1) // 2 * (height + gap) - gap)
    whole = Image.open(PICTURE).convert("L") if PICTURE.exists() else Image.new("L", size, 255)
    if whole.size != size:
        whole = Image.new("L", size, 255)
    whole.paste(strip.crop((0, 0, width, height)), (place % 2 * (width + gap), place // 2 * (height + gap)))
    whole.save(PICTURE)


def render(found: dict) -> str:
    rows = []
    for name in RECIPES:
        row = found.get(name)
        if row is None:
            rows.append(f"| {name} | not measured yet | | | | | | |")
            continue
        low, high = min(row["shares"]), max(row["shares"])
        rows.append(
            f"| {name} | {f'`{RECIPES[name]}`' if RECIPES[name] else ''} "
            f"| {row['cpu_seconds']:.0f} | {row['frechet']:.2f} | {row['frechet'] / row['floor']:.0f}× "
            f"| {row['recall']:.2f} | {row['confidence']:.1%} | {low:.0%} to {high:.0%} |"
        )
    some = next(iter(found.values()), {})
    names = list(RECIPES)
    about = f"Measured on {some.get('date')}, revision {some.get('revision')}, {some.get('machine')}."
    order = "; ".join(f"{a}, {b}" for a, b in zip(names[::2], names[1::2]))
    return f"""# The classics on the digits

Written by `python bench/classics.py` from `bench/results/recipes/digits.json`; do not edit it by hand.

Sixteen unconditional recipes on 1,797 handwritten digits at 16×16 pixels, one CPU thread each, far shorter than any
paper trains: `ganfast train NAME` with the options of the table and

    {IMAGES}

The Fréchet distance is over the features of a classifier of the digits (`frechet-lenet`, [scores.md](scores.md));
beside it stands how many times that is of what real digits have; recall is the share of real digits inside the samples'
manifold; then come the classifier's mean confidence in samples, and the smallest and largest share of a class. One seed
each: small differences say nothing.

| Recipe | Options | CPU s | Fréchet | of the floor | Recall | Confidence | Shares of classes |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

898 samples; the floor is {some.get("floor", float("nan")):.1f}. {about}

![Two rows of eight samples of each recipe](recipes/classics.png)

*From left to right and top to bottom: {order}.*
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--only", choices=RECIPES)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/recipes")
    chosen = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in [] if chosen.render else [chosen.only] if chosen.only else [n for n in RECIPES if n not in found]:
        found[name] = measure(name, chosen.folder)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(render(found))


if __name__ == "__main__":
    main()
