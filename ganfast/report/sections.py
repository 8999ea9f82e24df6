"""The page's sections; one that has nothing to say is empty."""

import shlex
from collections.abc import Iterable
from html import escape

from ganfast.report import facts as reading
from ganfast.report import images, tables
from ganfast.report.charts import COLOURS, Line, bars, chart
from ganfast.report.facts import Facts
from ganfast.report.tables import number, rounded, text, words
from ganfast.training.figures import families, headline

# figures of the engine: the title of their chart, and the label of each; the recipe's are drawn by families
ENGINE = {
    "Samples per second": {"images_per_second": "samples/s"},
    "Time of a step, ms": {"step_ms_p50": "median", "step_ms_p95": "95 %", "data_wait_ms": "wait for data"},
    "GPU memory, MB": {"gpu_memory_mb": "peak"},
    "Rollbacks": {"rollbacks": "so far"},
}
TITLES = {"loss": "Losses", "grad_norm": "Norms of the gradients"}
SCORES = {
    "accuracy": "Classifier's accuracy on held-out real samples",
    "real_confidence": "Its mean confidence on real samples",
    "fake_confidence": "Its mean confidence on generated samples",
    "agreement": "Generated samples that it assigns to their own class",
    "intra": "Fréchet distance within a class, mean over classes (intra-FID)",
    "intra_floor": "The same of real images",
    "distance": "Distance of the classes' shares (total variation, 0 is equal)",
    "modes": "Modes recovered",
    "total": "Modes of the data",
    "high_quality": "High-quality samples, share",
    "reverse_kl": "Reverse KL, nats",
    "kl": "KL of generated from real modes, nats",
    "floor_modes": "Modes that as many real images recover",
    "floor_kl": "KL of as many real images, nats",
    "real": "Real images that were compared with",
    "floor_samples": "Real images in each half of the floor",
}
ABOUT_SCORES = ("metric", "step", "data", "samples", "time")


def samples(facts: Facts) -> str:
    """The newest samples beside real ones, and those over time."""
    over_time = []
    for step, file in images.spread(facts.pictures, images.GRIDS):
        if picture := images.embed(file, images.SMALL):
            over_time.append((f"Generated, step {step:,}", file, picture))
        else:
            facts.missing.append(f"{file.name} cannot be decoded.")
    figures = []
    if over_time:
        when, file, small = over_time[-1]
        last = len(over_time) - 1
        slider = (
            '<div class="time"><label for="range">Over time</label>'
            f'<input id="range" type="range" min="0" max="{last}" value="{last}"></div>'
        )
        shown = image(images.embed(file, images.LARGE) or small, when, "shown")
        figures.append(f'<figure>{shown}<figcaption id="when">{when}</figcaption>{slider if last else ""}</figure>')
    if real := images.embed(facts.run / "reals.png", images.LARGE):
        figures.append(f"<figure>{image(real, 'Real samples')}<figcaption>Real</figcaption></figure>")
    elif (facts.run / "reals.png").is_file():
        facts.missing.append("reals.png cannot be decoded.")
    if latents := images.embed(facts.run / "latents.png", images.LARGE):
        said = "Codes of real samples over the prior"
        figures.append(f"<figure>{image(latents, said)}<figcaption>{said}</figcaption></figure>")
    if not figures:
        return ""
    strip = ""
    if len(over_time) > 1:
        items = "".join(f"<li>{image(picture, when)}{when.partition(', ')[2]}</li>" for when, _, picture in over_time)
        same = "pictures" if {"images", "maps"} & facts.given.keys() else "latents"
        left_out = len(facts.pictures) > len(over_time)
        some = f" {len(over_time)} of {len(facts.pictures)} pictures are in this page." if left_out else ""
        strip = (
            f'<ol class="strip" tabindex="0" aria-label="Generated samples over time">{items}</ol>'
            f'<p class="note">Always from the same {same}: each place shows one sample as it changes.{some}</p>'
        )
    return f'<section><h2>Samples</h2><div class="pair">{"".join(figures)}</div>{strip}</section>'


def image(picture: images.Embedded, alt: str, name: str = "") -> str:
    """Small pictures are shown at up to twice their size, pixel by pixel."""
    small = picture.width < 400
    marks = (f' id="{name}"' if name else "") + (' class="pixels"' if small else "")
    widest = picture.width * (2 if small else 1)
    return (
        f'<img{marks} src="{picture.uri}" alt="{escape(alt)}" width="{picture.width}" height="{picture.height}" '
        f'style="max-width:min(100%,{widest}px)">'
    )


def curves(facts: Facts) -> str:
    """A chart for every figure in stats.jsonl."""
    columns: dict[str, tuple[list, list]] = {}
    for row in facts.stats:
        for name, value in row.items():
            if name not in ("step", "images"):
                steps, values = columns.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    drawn = [chart(title, [Line(label, *columns[name]) for name, label in of]) for title, of in charts(columns)]
    if not drawn:
        return ""
    hint = "Over steps of training, with the last values."
    return (
        f'<section><h2>Curves</h2><p class="note">{hint}<span class="js-only"> Point at a curve to read others.</span>'
        f'</p><div class="charts">{"".join(drawn)}</div></section>'
    )


def charts(names: Iterable[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, [(figure, its label)]) of each chart: the losses, the recipe's figures, norms, then the engine's."""
    names = list(names)
    of_engine = {name for labels in ENGINE.values() for name in labels}
    found = families(name for name in names if name not in of_engine)

    def place(family: str) -> int:
        return 0 if f"{family}_".startswith("loss_") else 2 if family.startswith("grad_norm") else 1

    drawn = []
    for family, members in sorted(found.items(), key=lambda each: place(each[0])):
        title = TITLES.get(family, words(family))
        labels = [(name, name.removeprefix(f"{family}_").replace("_", " ")) for name in members]
        drawn += [(title, labels[k : k + COLOURS]) for k in range(0, len(labels), COLOURS)]
    of_run = [(title, [(n, label) for n, label in labels.items() if n in names]) for title, labels in ENGINE.items()]
    return drawn + [each for each in of_run if each[1]]


def scores(facts: Facts) -> str:
    """What ``ganfast evaluate`` kept."""
    known = facts.recipe and facts.recipe.answer and not any(each.source for each in facts.recipe.columns.values())
    if not facts.scores and "images" in facts.given and not known:  # evaluate needs to be told what to compare with
        return ""
    if not facts.scores:
        hint = command(["ganfast", "evaluate", str(facts.run)])
        return f'<section><h2>Scores</h2><p class="note">None yet. This keeps some in the run:</p>{hint}</section>'
    cards = "".join(card for metric, rows in facts.scores.items() for card in score_cards(metric, rows))
    return f'<section><h2>Scores</h2><div class="cards">{cards}</div></section>'


def score_cards(metric: str, rows: list[dict]) -> list[str]:
    """The newest evaluation by ``metric``, with those before; and where it has the shares of classes, their bars."""
    newest = rows[-1]
    numbers = {name: value for name, value in newest.items() if reading.is_number(value) and name not in ABOUT_SCORES}
    said = {name: newest[name] for name in ABOUT_SCORES[1:] if newest.get(name) is not None}
    forms = {"step": "step {}", "data": "on {}", "samples": "{} samples", "time": "{}"}
    about = ", ".join(
        forms[name].format(rounded(value) if name != "step" else text(value)) for name, value in said.items()
    )
    table = tables.of_values({SCORES.get(name, words(name)): rounded(value) for name, value in numbers.items()})
    values, floors = numbers_of(newest.get("values")), numbers_of(newest.get("floors"))
    if trivial := newest.get("trivial"):
        answers = {"generated": values, **{name: numbers_of(found) for name, found in trivial.items()}}
        beside = [{"score": name, **{who: of.get(name) for who, of in answers.items()}} for name in values]
        table = tables.of_rows(["score", *answers], beside) + table
    elif values:
        beside = [{"score": name, "generated": n, "real images": floors.get(name)} for name, n in values.items()]
        table = tables.of_rows(["score", "generated", "real images"], beside) + table
    numbers = values or numbers
    earlier = ""
    if len(rows) > 1:
        summary = f"<summary>All {len(rows)} evaluations</summary>"
        past = [{**row, **numbers_of(row.get("values"))} for row in images.spread(rows, 16)]
        earlier = f"<details>{summary}{tables.of_rows(['step', *numbers], past)}</details>"
    cards = [f'<div><h3>{escape(words(metric))}</h3><p class="note">{escape(about)}</p>{table}{earlier}</div>']
    real, fake = (shares(newest.get(name)) for name in ("real_shares", "fake_shares"))
    if len(real) == len(fake) > 0:
        cards.append(bars("Shares of the classes", [("real", real), ("generated", fake)]))
    if agreements := shares(newest.get("agreements")):
        cards.append(bars("Samples that the classifier assigns to their own class", [("generated", agreements)]))
    return cards + over_time(rows)


def over_time(rows: list[dict]) -> list[str]:
    """The curve of the score that a report names first, beside that of real images, where it has two steps or more."""
    points: dict[float, tuple] = {}
    for row in rows:
        head = headline({**row, "values": numbers_of(row.get("values")), "floors": numbers_of(row.get("floors"))})
        if head and reading.is_number(row.get("step")) and reading.is_number(head[1]):
            points[row["step"]] = head
    if len(points) < 2:
        return []
    steps = sorted(points)
    name = points[steps[-1]][0]
    lines = [Line("generated", steps, [points[step][1] for step in steps])]
    floors = [points[step][2] for step in steps]
    if all(map(reading.is_number, floors)):
        lines.append(Line("real images", steps, floors))
    return [chart(SCORES.get(name, words(name)), lines)]


def numbers_of(value) -> dict[str, float]:
    """The numbers by name in ``value``; nothing where it is no such table."""
    return {name: n for name, n in value.items() if reading.is_number(n)} if isinstance(value, dict) else {}


def shares(value) -> list[float]:
    """``value`` where it is a list of numbers, else nothing."""
    return value if isinstance(value, list) and all(map(reading.is_number, value)) else []


def commands(facts: Facts) -> str:
    """To copy."""
    run = str(facts.run)
    blocks = [("Train it again", reading.command(facts))] if facts.about else []
    if facts.checkpoints and facts.status[0] != "finished":
        blocks.append(("Go on with it", ["ganfast", "train", facts.recipe_name, "--resume", run]))
    if (facts.run / "generator.safetensors").is_file():
        blocks.append(("Draw from it", reading.drawing(facts)))
    parts = "".join(f"<h3>{name}</h3>{command(each)}" for name, each in blocks)
    return f"<section><h2>Commands</h2>{parts}</section>" if parts else ""


def command(argv: list[str]) -> str:
    """A line for the shell, or several where it is long, that can be copied."""
    line = shlex.join(argv)
    if len(line) > 90:
        line = " ".join(f"\\\n  {word}" if word.startswith("--") else shlex.quote(word) for word in argv)
    return f'<pre tabindex="0"><code>{escape(line)}</code></pre>'


def options(facts: Facts) -> str:
    of_recipe, of_run = facts.part("recipe"), {**facts.part("options")}
    of_run.pop("resume", None)
    parts = [
        ("Recipe", of_recipe, reading.changed(of_recipe, defaults) if (defaults := facts.recipe_defaults) else {}),
        ("Run", of_run, reading.changed_options(facts)),
        ("Data", facts.part("data"), {}),
        ("Second data", facts.part("data_b"), {}),
        ("Environment", facts.part("environment"), {}),
    ]
    cards = "".join(
        f"<div><h3>{title}</h3>{tables.of_values({name: text(value) for name, value in values.items()}, bold)}</div>"
        for title, values, bold in parts
        if values
    )
    if not cards:
        return ""
    note = '<p class="note">Bold: not the default.</p>'
    return f'<section><h2>Options</h2>{note}<div class="columns">{cards}</div></section>'


def checkpoints(facts: Facts) -> str:
    if not facts.checkpoints:
        return ""
    said = {"yes": "agree with their checksums", "": "not compared"}
    rows = [
        {
            "checkpoint": each.path.name,
            "written": reading.clock(each.written),
            "MB": number(each.size / 1e6),
            "files": said.get(each.sound, each.sound),
        }
        for each in reversed(facts.checkpoints)
    ]
    return f"<section><h2>Checkpoints</h2>{tables.of_rows(list(rows[0]), rows)}</section>"


def details(facts: Facts) -> str:
    """Numbers for those who want them, and the end of the log."""
    parts = []
    if facts.stats:
        names = list(dict.fromkeys(name for row in facts.stats for name in row))
        table = tables.of_rows(names, images.spread(facts.stats, 16))
        parts.append(f"<details><summary>Numbers</summary>{table}</details>")
    if facts.log:
        end = escape("\n".join(facts.log[-20:]))
        parts.append(f'<details><summary>Log</summary><pre class="wrap">{end}</pre></details>')
    return f"<section><h2>More</h2>{''.join(parts)}</section>" if parts else ""
