"""How a report looks, and what a script adds to it: the slider and the readings on the curves."""

CSS = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1c1e21; --soft: #5c6470; --line: #dfe3e8; --card: #f6f7f9;
  --c0: #2563c9; --c1: #c2590c; --c2: #23806a; --c3: #8b46b8; --good: #1a7a4c; --warn: #96590a; }
@media (prefers-color-scheme: dark) { :root { --bg: #14161a; --fg: #e7e9ec; --soft: #9aa3af; --line: #30353d;
  --card: #1d2026; --c0: #74a6f7; --c1: #f0954c; --c2: #55c2a3; --c3: #c995ea; --good: #5fcf96; --warn: #e7b15c; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 3rem; background: var(--bg); color: var(--fg);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; margin: .1rem 0 .4rem; letter-spacing: -.02em; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; letter-spacing: -.01em; }
h3 { font-size: .95rem; margin: 0; font-weight: 600; }
p { margin: .4rem 0; max-width: 46rem; }
a { color: var(--c0); }
.run, .note, figcaption, small, footer { color: var(--soft); font-size: .875rem; }
.run { margin: 0; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; border: 1px solid currentColor;
  font-weight: 600; font-size: .875rem; margin-right: .4rem; color: var(--warn); }
.badge.finished { color: var(--good); } .badge.running { color: var(--c0); }
.missing { border-left: 3px solid var(--warn); padding: .1rem 0 .1rem 1rem; margin: 1.2rem 0; }
.missing ul { margin: .3rem 0; padding-left: 1.1rem; } .missing strong { color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1.4rem 0 0; }
.tiles div { background: var(--card); border-radius: .6rem; padding: .7rem .9rem; }
.tiles dt { color: var(--soft); font-size: .8rem; } .tiles dd { margin: 0; font-size: 1.3rem; font-weight: 600;
  font-variant-numeric: tabular-nums; line-height: 1.3; } .tiles dd small { font-weight: 400; display: block; }
figure { margin: 0; min-width: 0; } figcaption { margin: .4rem 0 0; }
img { display: block; max-width: 100%; height: auto; border-radius: .25rem; box-shadow: 0 0 0 1px var(--line); }
img.pixels { image-rendering: pixelated; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.5rem; }
.pair img { width: 100%; }
.time { display: none; align-items: center; gap: .75rem; margin-top: .5rem; } .js .time { display: flex; }
.time input { flex: 1; min-width: 0; max-width: 22rem; height: 1.75rem; accent-color: var(--c0); }
.strip { display: flex; gap: .75rem; overflow-x: auto; padding: .6rem 2px .8rem; margin: 0; list-style: none;
  scroll-snap-type: x proximity; }
.strip li { flex: 0 0 auto; width: 13rem; scroll-snap-align: start; font-size: .8rem; color: var(--soft); }
.strip img { width: 100%; } .js .strip li { width: 7rem; cursor: pointer; }
.js .strip li.on img { outline: 2px solid var(--c0); outline-offset: 1px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1.5rem 1.25rem; }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; margin: 0 0 .3rem; }
.chart h3 { color: var(--fg); width: 100%; }
.legend { display: flex; flex-wrap: wrap; gap: 0 .9rem; list-style: none; margin: 0; padding: 0; font-size: .8rem; }
.legend li::before { content: ""; display: inline-block; width: .75rem; height: .2rem; border-radius: 1px;
  background: var(--c); margin-right: .35rem; vertical-align: middle; }
.legend b { color: var(--fg); font-variant-numeric: tabular-nums; font-weight: 600; }
svg { display: block; width: 100%; height: auto; overflow: visible; touch-action: pan-y; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
.ruler { stroke: var(--line); fill: none; } .line { stroke: var(--c); stroke-width: 1.6; fill: none;
  stroke-linejoin: round; } .band { fill: var(--c); opacity: .18; stroke: none; } .dot, .bar { fill: var(--c); }
.cross { visibility: hidden; } .cross path { stroke: var(--soft); stroke-dasharray: 3 3; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; width: 100%; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 400; color: var(--soft); } thead th { font-weight: 600; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.scroll td, .scroll th, .cards td, .columns th { white-space: nowrap; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1.5rem 2.5rem; }
.cards .chart { max-width: 28rem; }
.columns { columns: 19rem auto; column-gap: 2.5rem; }
.columns > div { break-inside: avoid; padding-bottom: 1.5rem; }
.cards h3, .columns h3 { margin-bottom: .3rem; }
.js-only { display: none; } .js .js-only { display: inline; }
pre { background: var(--card); border-radius: .6rem; padding: .7rem .9rem; margin: .3rem 0 1rem; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .8rem 0; } summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; }
:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
@media print { .time, .cross { display: none !important; } .strip { flex-wrap: wrap; } body { max-width: none; } }
"""

JS = """
document.documentElement.classList.add("js");
const range = document.getElementById("range");
if (range) {
  const shown = document.getElementById("shown"), when = document.getElementById("when"), newest = shown.src;
  const thumbs = [...document.querySelectorAll(".strip li")];
  const show = k => {
    const image = thumbs[k].querySelector("img");
    shown.src = k == thumbs.length - 1 ? newest : image.src;
    shown.alt = when.textContent = image.alt;
    range.setAttribute("aria-valuetext", image.alt);
    thumbs.forEach((each, i) => each.classList.toggle("on", i == k));
  };
  range.addEventListener("input", () => show(+range.value));
  thumbs.forEach((each, k) => each.addEventListener("click", () => { range.value = k; show(k); }));
  show(+range.value);
}
for (const svg of document.querySelectorAll("svg[data-lines]")) {
  const lines = JSON.parse(svg.dataset.lines), cross = svg.querySelector(".cross"), step = cross.querySelector("text");
  const values = [...svg.closest("figure").querySelectorAll(".legend b")], last = values.map(each => each.textContent);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const nearest = xs => xs.reduce((best, each, i) => Math.abs(each - x) < Math.abs(xs[best] - x) ? i : best, 0);
    lines.forEach((line, k) => { values[k].textContent = line.v[nearest(line.x)]; });
    const i = nearest(lines[0].x), left = lines[0].x[i], right = left > 260;
    step.textContent = "step " + lines[0].s[i];
    step.setAttribute("x", right ? -5 : 5);
    step.setAttribute("text-anchor", right ? "end" : "start");
    cross.setAttribute("transform", `translate(${left} 0)`);
    cross.style.visibility = "visible";
  });
  svg.addEventListener("pointerleave", () => {
    cross.style.visibility = "hidden";
    values.forEach((each, k) => { each.textContent = last[k]; });
  });
}
"""
