"""The table of mode coverage: what a row keeps, and the page that is made of it."""

import json
import sys

import modes
import pytest


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["modes.py", *map(str, words)])
    return modes.main()


def test_rows_are_kept_and_rendered(tmp_path, monkeypatch):
    results = tmp_path / "results" / "cpu.json"
    size = ("--results", results, "--updates", 6, "--width", 8, "--batch", 12, "--seeds", 2, "--data", "ring8")
    for rows in (["r3gan"], ["r3gan", "unrolled"]):
        run(monkeypatch, *size, "--rows", *rows)
    found = json.loads(results.read_text())["rows"]
    assert {name: row["steps"] for name, row in found.items()} == {"ring8/r3gan": 6, "ring8/unrolled": 1}
    row = found["ring8/r3gan"]
    assert len(row["modes"]) == len(row["high_quality"]) == 2 and len(row["samples"].split()) == 2 * modes.DRAWN
    row.update(modes=[8, 6], high_quality=[0.9, 0.8], reverse_kl=[0.1, 0.3])
    results.write_text(json.dumps({"environment": modes.calibrate.environment(), "rows": found}))
    modes.render(results.parent, tmp_path / "modes.md")
    page = (tmp_path / "modes.md").read_text()
    assert "| r3gan | 7.0 ± 1.4 / 6.0 | 85.0% ± 7.1% / 80.0% | 0.20 ± 0.14 / 0.30 | 6 |" in page
    assert page.count("not measured yet") == 2 * len(modes.ROWS) - 2
    assert (tmp_path / "modes" / "cpu.png").stat().st_size < 150_000


def test_rows_of_other_protocols_do_not_share_a_page():
    row = {"width": 8, "batch": 12, "seeds": [0, 1], "lr_decay": "none"}
    with pytest.raises(SystemExit, match="other protocols"):
        modes.page("cpu", {"environment": {}, "rows": {"a": row, "b": {**row, "width": 9}}})
