"""The page: facts become HTML that asks nothing of a network, and reads without a script."""

from html import escape
from pathlib import Path

from ganfast import __version__
from ganfast.errors import InputError
from ganfast.files import replacing
from ganfast.recipes import RECIPES
from ganfast.report import facts as reading
from ganfast.report import sections, walks
from ganfast.report.facts import Facts
from ganfast.report.style import CSS, JS
from ganfast.report.tables import number, text


def write(run: Path, file: Path) -> list[str]:
    """Write the page on ``run`` to ``file``, whole or not at all; returns what is missing in the run, in sentences."""
    facts = reading.read(run)
    content = page(facts)
    try:
        with replacing(file) as partial:
            partial.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}): give another file (-o).") from None
    return facts.missing


def page(facts: Facts) -> str:
    data = facts.data_names
    title = f"{facts.recipe_name} on {' and '.join(data)}" if data else facts.recipe_name
    samples, walked = sections.samples(facts), walks.section(facts)  # first: they find out which files are damaged
    body = [missing(facts), tiles(facts), samples, walked, sections.curves(facts), sections.scores(facts)]
    body += [sections.commands(facts), sections.options(facts), sections.checkpoints(facts), sections.details(facts)]
    name = escape(facts.run.resolve().name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="description" content="Report on the training run {name}: {escape(title)}">
<link rel="icon" href="data:,">
<title>{escape(title)} · {name}</title>
<style>{CSS}</style>
</head>
<body>
{header(facts, title)}
<main>
{chr(10).join(filter(None, body))}
</main>
<footer>Made {reading.clock(facts.now)} by ganfast {__version__} from {escape(str(facts.run))}.
This page needs no network and no other file.</footer>
<script>{JS}</script>
</body>
</html>
"""


def header(facts: Facts, title: str) -> str:
    word, detail = facts.status
    return (
        f'<header><p class="run">ganfast run {escape(facts.run.resolve().name)}</p><h1>{escape(title)}</h1>'
        f'<p><span class="badge {word}">{word}</span> {escape(detail)}</p><p>{escape(lead(facts))}</p></header>'
    )


def lead(facts: Facts) -> str:
    """What was trained on what, in a sentence or two."""
    recipe = RECIPES.get(facts.recipe_name)
    said = [recipe.__doc__.strip().splitlines()[0]] if recipe and recipe.__doc__ else []
    held = []
    for name in ("data", "data_b"):
        data = facts.part(name)
        count, kind, shape = data.get("count"), data.get("kind", "samples"), data.get("shape")
        if reading.is_number(count) and isinstance(shape, list):
            of = f"{kind} of {text(shape)}" if len(shape) > 1 else f"{kind} in {text(shape)} dimensions"
            held.append(f"{count:,} {of}" + (f" ({data.get('name')})" if facts.part("data_b") else ""))
    if held:
        of_each = " of each" if len(held) > 1 else ""
        said.append(
            f"Trained on {' and '.join(held)}, {facts.part('options').get('batch', 'some')}{of_each} at a time."
        )
    return " ".join(said)


def missing(facts: Facts) -> str:
    if not facts.missing:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in facts.missing)
    return f'<aside class="missing"><strong>What is missing</strong><ul>{items}</ul></aside>'


def tiles(facts: Facts) -> str:
    """The run in a few numbers."""
    total = facts.total_steps
    shown = [("Step", f"{facts.step:,}", f"of {total:,}" if total else "")]
    if images := facts.column("images"):
        count = facts.part("data").get("count")
        epochs = f"{number(round(images[-1] / count, 1))} epochs" if reading.is_number(count) and count else ""
        shown.append(("Real samples seen", number(images[-1]), epochs))
    if seconds := reading.training_seconds(facts):
        shown.append(("Training time", duration(seconds), ""))
    if pace := facts.column("images_per_second"):
        shown.append(("Samples/s", number(median(pace)), "median"))
    if halves := facts.column("step_ms_p50"):
        tail = facts.column("step_ms_p95")
        shown.append(
            ("Time of a step", f"{number(median(halves))} ms", f"95 % in {number(median(tail))} ms" if tail else "")
        )
    if memory := facts.column("gpu_memory_mb"):
        shown.append(("GPU memory", f"{number(max(memory))} MB", "at most"))
    environment = facts.part("environment")
    if device := environment.get("device_name") or environment.get("device"):
        shown.append(("Device", str(device), str(facts.part("options").get("precision", ""))))
    cells = [
        f"<div><dt>{name}</dt><dd>{escape(value)}{f'<small>{escape(more)}</small>' if more else ''}</dd></div>"
        for name, value, more in shown
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
