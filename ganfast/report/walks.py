"""The page's section on what lies between samples; drawn when the page is made."""

from html import escape

from ganfast.errors import InputError
from ganfast.recipes.trained import FILE, load
from ganfast.report import images
from ganfast.report.facts import Facts
from ganfast.report.sections import image
from ganfast.training import pictures
from ganfast.training.walking import walks


def section(facts: Facts) -> str:
    """Rows of samples along walks of the generator that is in the run; empty where it draws none from latents."""
    figures = []
    try:
        found = walks(load(facts.run), facts.run) if (facts.run / FILE).is_file() else ()
        for title, rows, samples in found:
            picture = pictures.to_image(pictures.grid(pictures.to_uint8(samples), len(samples) // len(rows)))
            picture.thumbnail((images.LARGE, images.LARGE))
            shown = image(images.embedded(picture), title)
            said = escape(f"{title}. Rows: {', '.join(rows)}.")
            figures.append(f"<figure>{shown}<figcaption>{said}</figcaption></figure>")
    except InputError as error:
        facts.missing.append(f"No walks, or not all: {error}")
    return f'<section><h2>Walks</h2><div class="pair">{"".join(figures)}</div></section>' if figures else ""
