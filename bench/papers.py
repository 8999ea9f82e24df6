"""Recipes beside their papers: each trained by its command, scored by `ganfast evaluate`, and drawn.

python bench/papers.py                      train and score what its results lack, then write docs/papers.md and
                                            docs/translation.md
python bench/papers.py --only cgan          that recipe's missing runs; --run NAME: that run of it anew
python bench/papers.py --render             write the pages alone

What is trained and which figures are kept is said by bench/papers/RECIPE.toml; results lie in bench/results/papers.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
from pathlib import Path

import tomllib
from classics import cpu_seconds, ganfast
from store import revision

ROOT = Path(__file__).resolve().parent.parent
SHEETS, RESULTS = ROOT / "bench/papers", ROOT / "bench/results/papers"
PICTURES = ROOT / "docs/papers"
DATA = Path(os.environ.get("GANFAST_TEST_DATA", ROOT.parent / "shared/data"))


def sheets() -> dict[str, dict]:
    return {path.stem: tomllib.loads(path.read_text()) for path in sorted(SHEETS.glob("*.toml"))}


def results(name: str) -> dict:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def measure(name: str, sheet: dict, run: dict, folder: Path) -> dict:
    """Train and score one run; what is kept of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in DATA.iterdir():
        if each.is_dir() and not (folder / each.name).exists():
            (folder / each.name).symlink_to(each)
    words, began = shlex.split(run["train"]), cpu_seconds()
    ganfast("train", *words, "--outdir", "runs", "--log-every", "100", "--sample-every", "1000000", cwd=folder)
    seconds = cpu_seconds() - began
    made = max((folder / "runs").glob(f"*-{words[0]}-*"), key=lambda path: path.stat().st_mtime)
    if "evaluate" in run:
        ganfast("evaluate", str(made), *shlex.split(run["evaluate"]), cwd=folder)
    for command in run.get("then", []):
        ganfast(*(word.replace("RUN", str(made)) for word in shlex.split(command)), cwd=folder)
    keep_picture(made / run.get("picture", "fakes.png"), picture_of(name, sheet, run))
    figures = {f["what"]: figure(made, f) for f in sheet["figures"] if wanted(f, run)}
    return {
        "command": f"ganfast train {run['train']}",
        "cpu_seconds": round(seconds, 1),
        "figures": figures,
        "revision": revision(),
        "date": datetime.date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
    }


def wanted(figure: dict, run: dict) -> bool:
    return run["name"] in figure.get("runs", [run["name"]])


def figure(run: Path, wanted: dict) -> float:
    """The number that a figure names, of the last line of its metric."""
    found = json.loads((run / f"metric-{wanted['metric']}.jsonl").read_text().splitlines()[-1])
    for part in wanted["field"].split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def picture_of(name: str, sheet: dict, run: dict) -> Path:
    of_run = f"-{run['name'].replace(' ', '-')}" if len(sheet["runs"]) > 1 else ""
    return PICTURES / f"{name}{of_run}.png"


def keep_picture(source: Path, target: Path) -> None:
    """In at most 128 colours, or 16 shades of grey."""
    from PIL import Image

    target.parent.mkdir(exist_ok=True)
    image = Image.open(source)
    image.quantize(16 if image.mode == "L" else 128).save(target, optimize=True)


def render(page: str = "papers") -> str:
    chosen = {name: sheet for name, sheet in sheets().items() if sheet.get("page", "papers") == page}
    return "\n".join([HEADS[page], *(section(name, sheet, results(name)) for name, sheet in chosen.items())])


def section(name: str, sheet: dict, found: dict) -> str:
    """A recipe: its commands, a table of runs and figures with the paper's in the last row, its pictures."""
    figures = sheet["figures"]
    rows = [
        f"| {run['name']} | {found[run['name']]['cpu_seconds']:.0f} | "
        + " | ".join(shown(f, found[run["name"]]["figures"].get(f["what"])) for f in figures)
        + " |"
        for run in sheet["runs"]
        if run["name"] in found
    ]
    missing = [run["name"] for run in sheet["runs"] if run["name"] not in found]
    commands = [
        line
        for run in sheet["runs"]
        for line in (
            f"ganfast train {run['train']}",
            *([f"ganfast evaluate RUN {run['evaluate']}".strip()] if "evaluate" in run else []),
            *(f"ganfast {command}" for command in run.get("then", [])),
        )
    ]
    told = [f["paper"] for f in figures]
    pictures = [picture_of(name, sheet, run) for run in sheet["runs"]]
    lines = [
        f"## {name}\n",
        f"{sheet['paper']}. {sheet['protocol']}\n",
        "```sh", *dict.fromkeys(commands), "```\n",
        "| Run | CPU s | " + " | ".join(f["what"] for f in figures) + " |",
        "|---" * (2 + len(figures)) + "|",
        *rows,
        *([] if not any(told) else [f"| the paper | | {' | '.join(told)} |"]),
        "",
        *([f"Not measured yet: {', '.join(missing)}.\n"] if missing else []),
        *([sheet["seen"].strip() + "\n"] if "seen" in sheet else []),
        *(f"![{name}: {path.stem}](papers/{path.name})\n" for path in pictures if path.exists()),
    ]  # fmt: skip
    return "\n".join(lines)


def shown(figure: dict, value: float | None) -> str:
    return "" if value is None else format(value, figure["format"])


WRITTEN = """Written by `python bench/papers.py` from `bench/papers/*.toml` and `bench/results/papers/*.json`; do not
edit it by hand.
"""
HEADS = {
    "papers": f"""# Recipes beside their papers

{WRITTEN}
Labels, codes and encoders: what each recipe's paper measures, measured here by `ganfast evaluate` after minutes on one
CPU thread, far shorter than any paper trains. CPU s are those of training. One seed each unless several stand there:
small differences say nothing.
""",
    "translation": f"""# Image to image

{WRITTEN}
What recipes that are given pictures make of rows that they were not trained on, unless it is said otherwise, after
minutes on one CPU thread, beside trivial answers ([scores.md](scores.md)). CPU s are those of training; one seed each.
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--only", help="a recipe")
    parser.add_argument("--run", help="one of its runs, anew")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/papers")
    chosen = parser.parse_args()
    for name, sheet in {} if chosen.render else sheets().items():
        for run in sheet["runs"] if chosen.only in (None, name) else []:
            if chosen.run == run["name"] or (chosen.run is None and run["name"] not in results(name)):
                measured = measure(name, sheet, run, chosen.folder.absolute() / name)
                found = results(name) | {run["name"]: measured}
                RESULTS.mkdir(exist_ok=True)
                (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for page in HEADS:
        (ROOT / f"docs/{page}.md").write_text(render(page))


if __name__ == "__main__":
    main()
