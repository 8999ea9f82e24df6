"""The page in a real browser: headless Chromium, on a desktop and a phone, light and dark, with and without scripts."""

import io
import json

import pytest
from PIL import Image
from report.browser import CHROMIUM, DRIVER, browser

from ganfast.report import write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (chromium-driver) on PATH"),
]

DRAWINGS = 8  # losses, accuracy, gradient norms, samples per second, step time, memory, shares and agreement of classes


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture
def page(run):
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    more = {"step_ms_p50": 3.25, "step_ms_p95": 4.5, "data_wait_ms": 0.1, "gpu_memory_mb": 512.0}
    (run / "stats.jsonl").write_text("".join(json.dumps({**row, **more}) + "\n" for row in rows))
    write(run, run / "report.html")
    return run / "report.html"


def mean_brightness(shot: bytes) -> float:
    with Image.open(io.BytesIO(shot)) as picture:
        return picture.convert("L").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_shows(window, page, phone, dark):
    width = 390 if phone else 1280
    window.look(width, 844, phone=phone, dark=dark)
    window.open(page)
    assert window.run("return document.title") == "dcgan on digits · 00000-dcgan-digits"
    assert window.logged("browser") == []
    requested = window.requests()
    assert page.resolve().as_uri() in requested
    assert [url for url in requested if not url.startswith("data:") and url != page.resolve().as_uri()] == []

    images = window.run("return [...document.images].map(each => [each.naturalWidth, each.alt])")
    assert len(images) == 7 and all(natural > 0 and alt for natural, alt in images)
    text = window.run("return document.body.innerText")
    for words in ("finished", "Losses", "Time of a step", "512 MB", "Shares of the classes", "ganfast train dcgan"):
        assert words in text
    assert window.run("return document.documentElement.scrollWidth") <= width  # nothing sticks out
    heights = window.run("return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)")
    assert len(heights) == DRAWINGS and min(heights) > 120
    smallest = window.run(
        "return Math.min(...[...document.querySelectorAll('svg text')].filter(t => t.textContent && "
        "t.checkVisibility({visibilityProperty: true})).map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 10  # pixels: legible on a phone, too

    shot = window.screenshot()
    with Image.open(io.BytesIO(shot)) as picture:
        assert picture.width == width and picture.height > 2000
    assert mean_brightness(shot) < 90 if dark else mean_brightness(shot) > 165


def test_colours_have_contrast(window, page):
    """WCAG 2.1: 4.5 for text and 3 for what is drawn, against the page's background."""
    ratio = """
      const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255).map(
        v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      const ratio = c => { const l = light(c); return (Math.max(l, ground) + 0.05) / (Math.min(l, ground) + 0.05); };
      const colour = (what, name) => [...document.querySelectorAll(what)].map(e => ratio(getComputedStyle(e)[name]));
      return [Math.min(...colour("p, h1, h2, h3, td, th, li, dt, dd, figcaption, pre, footer, .badge", "color")),
              Math.min(...colour("svg text", "fill"), ...colour(".line", "stroke"))];"""
    for dark in (False, True):
        window.look(1280, 844, dark=dark)
        window.open(page)
        text, drawn = window.run(ratio)
        assert text >= 4.5 and drawn >= 3


def test_the_slider_goes_back_in_time(window, page):
    window.look(1280, 844)
    window.open(page)
    state = (
        "const s = document.getElementById('shown'); return [s.src, s.alt, document.getElementById('when').innerText]"
    )
    newest = window.run(state)
    assert newest[1:] == ["Generated, step 12", "Generated, step 12"]
    move = "const r = document.getElementById('range'); r.value = {}; r.dispatchEvent(new Event('input')); "
    first = window.run(move.format(0) + state)
    assert first[1:] == ["Generated, step 0", "Generated, step 0"] and first[0] != newest[0]
    assert window.run("document.querySelectorAll('.strip li')[2].click(); " + state)[1] == "Generated, step 8"
    assert window.run(move.format(3) + state) == newest


def test_a_curve_can_be_read(window, page):
    window.look(1280, 844)
    window.open(page)
    rows = [json.loads(line) for line in (page.parent / "stats.jsonl").read_text().splitlines()]
    read = """
      const svg = document.querySelector("svg[data-lines]"), box = svg.getBoundingClientRect();
      const x = box.left + 46 / 360 * box.width, value = svg.closest("figure").querySelector(".legend b");
      svg.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: box.top + 9}));
      return [svg.querySelector(".cross text").textContent, value.innerText];"""
    step, value = window.run(read)
    assert step == "step 2" and float(value) == pytest.approx(rows[0]["loss_d"], rel=0.01)
    leave = 'const s = document.querySelector("svg[data-lines]"); s.dispatchEvent(new Event("pointerleave")); '
    value = window.run(leave + 'return s.closest("figure").querySelector(".legend b").innerText')
    assert float(value) == pytest.approx(rows[-1]["loss_d"], rel=0.01)


def test_without_a_script_the_essentials_are_there(window, page):
    window.look(1280, 844, script=False)
    window.open(page)
    seen = """
      const shown = what => [...document.querySelectorAll(what)].map(e => e.getBoundingClientRect().width);
      return [document.documentElement.className, shown(".time"), shown(".strip img"), shown("#shown, .pair img"),
              [...document.images].every(e => e.complete && e.naturalWidth > 0), shown(".chart svg").length];"""
    name, slider, strip, pair, decoded, charts = window.run(seen)
    assert name == "" and slider == [0]
    assert len(strip) == 4 and min(strip) > 200  # large enough to see without the slider
    assert len(pair) == 3 and decoded and charts == DRAWINGS  # generated and real samples, a walk
