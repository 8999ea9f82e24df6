import html
import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganfast import Trainer
from ganfast.cli import main
from ganfast.errors import InputError
from ganfast.recipes import DCGAN, RECIPES, CycleGAN
from ganfast.report import facts, sections, write


def page_of(run: Path) -> tuple[str, list[str]]:
    """(the page on ``run`` as text, what it says is missing)."""
    missing = write(run, run.parent / "page.html")
    return html.unescape((run.parent / "page.html").read_text()), missing


def cut(name: str, keep: float = 0.5):
    """A damage: ``name`` ends early."""

    def damage(run: Path):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(keep * len(content))])

    return damage


def removed(*names: str):
    def damage(run: Path):
        for name in names:
            for path in run.glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def content(name: str, text: str):
    return lambda run: (run / name).write_text(text)


def test_a_complete_run(complete):
    page, missing = page_of(complete)
    assert missing == [] and "What is missing" not in page
    assert "<title>dcgan on digits · 00000-dcgan-digits</title>" in page
    assert 'class="badge finished">finished</span> 12 steps' in page
    assert "Trained on 1,797 images of 1×16×16, 8 at a time." in page
    assert page.count("data:image/") == 4 + 1 + 1 + 1  # over time (0, 4, 8, 12), the newest, real ones, walks
    assert "<h2>Walks</h2>" in page and "Rows: seed 0 to seed 1, seed 2 to seed 3" in page
    for step in (0, 4, 8, 12):
        assert f'alt="Generated, step {step}"' in page
    for title in ("Losses", "Accuracy", "Norms of the gradients", "Samples per second", "Shares of the classes"):
        assert f"<h3>{title}</h3>" in page
    assert "Samples that the classifier assigns to their own class" in page and "90.0 %, 91.0 %" in page
    assert "<b>0.98</b>" in page or ">0.98<" in page
    assert "All 2 evaluations" in page and "step 12, on digits, 100 samples, 2026-01-02 03:04:05" in page
    assert "<td>images, labels</td>" in page and "<td>1×16×16</td>" in page
    assert "checkpoint-000012" in page and page.count("agree with their checksums") == 1
    assert re.search(r"ganfast generate [\\\s]*--network", page) and "--resume" not in page
    assert re.search(r'scope="row">width</th><td><b>4</b>', page) and re.search(r'row">lr</th><td>0.0002<', page)


def test_it_asks_nothing_of_a_network(complete):
    page, _ = page_of(complete)
    assert all(link.startswith("data:") for link in re.findall(r"(?:src|href)=[\"']?([^\"' >]*)", page))
    assert "default-src 'none'" in page and "url(" not in page and "@import" not in page


def test_the_command_trains_it_again(complete, capsys):
    command = facts.command(facts.read(complete))
    assert command[:3] == ["ganfast", "train", "dcgan"] and main([*command[1:], "-n"]) == 0
    out = capsys.readouterr().out
    assert "1797 images of 1×16×16" in out and "from step" not in out and "to step 12, batch 8" in out
    assert command[3:] == [
        "--data", "digits", "--size", "16", "--steps", "12", "--outdir", str(complete.parent), "--batch", "8",
        "--checkpoint-every", "5", "--sample-every", "4", "--log-every", "2", "--latent-dim", "8", "--width", "4",
    ]  # fmt: skip


def test_switches_are_said_as_the_command_line_takes_them(complete, capsys):
    read = facts.read(complete)
    read.about["options"] |= {"flip": True, "graph": False}
    command = facts.command(read)
    assert "--flip" in command and "--no-graph" in command and main([*command[1:], "-n"]) == 0


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (removed("options.json"), "No options.json: the options are those of checkpoint-000012"),
        (cut("options.json"), "options.json cannot be read: the options are those of checkpoint-000012"),
        (content("options.json", "[1, 2]"), "options.json cannot be read: the options are those of checkpoint-000012"),
        (removed("options.json", "checkpoint-*"), "No options.json: options and environment are unknown"),
        (content("options.json", '{"recipe": 3, "options": {"steps": "x"}, "data": [], "total_steps": [1]}'), ""),
        (content("options.json", '{"recipe": {"name": []}, "data": {"shape": [1], "count": 2}, "data_b": 3}'), ""),
        (removed("stats.jsonl"), "there are no curves"),
        (content("stats.jsonl", ""), "there are no curves"),
        (cut("stats.jsonl", 0.9), "1 line(s) of stats.jsonl cannot be read"),
        (content("stats.jsonl", '{"step": 3, "loss_d": NaN, "x": "y", "y": 1e999}\n[]\n7\n{"loss_d": 1}'), "3 line(s)"),
        (removed("log.txt"), "No log.txt"),
        (removed("reals.png"), "No reals.png"),
        (cut("reals.png"), "reals.png cannot be decoded"),
        (content("reals.png", "no picture"), "reals.png cannot be decoded"),
        (removed("fakes-*.png"), "there are no generated samples"),
        (cut("fakes-000008.png"), "fakes-000008.png cannot be decoded"),
        (removed("checkpoint-*"), "No checkpoint yet"),
        (cut("checkpoint-000012/state.pt"), "checkpoint-000012 is damaged (state.pt differ"),
        (cut("checkpoint-000012/checkpoint.json"), "checkpoint-000012 is damaged (its manifest"),
        (removed("checkpoint-000012/G.safetensors"), "checkpoint-000012 is damaged (No such file"),
        (lambda run: (run / "checkpoint-000010").rename(run / "damaged-checkpoint-000010"), "was set aside"),
        (removed("generator.safetensors"), "No generator.safetensors"),
        (cut("generator.safetensors"), "No walks, or not all: "),
        (content("directions.safetensors", "{"), "No walks, or not all: directions.safetensors cannot be read"),
        (cut("metric-classes.jsonl", 0.9), "1 line(s) of metric-classes.jsonl"),
        (content("metric-classes.jsonl", '{"step": [1], "real_shares": ["a"], "fake_shares": 3, "x": {"y": 1}}'), ""),
        (content("metric-classes.jsonl", '{"step": 1, "agreements": [0.5, null]}'), ""),
        (removed("*.png", "*.json*", "checkpoint-*", "*.safetensors"), "No options.json"),
        (removed("*.png", "*.json*", "*.txt", "*.safetensors", "tensorboard"), "No log.txt"),
    ],
)  # fmt: skip
def test_of_a_damaged_run_it_says_what_is_missing(damage, sentence, run):
    damage(run)
    page, missing = page_of(run)
    assert "</html>" in page
    assert sentence == "" or (any(sentence in each for each in missing) and sentence in page)


def about(run: Path, **parts) -> None:
    """Change parts of options.json."""
    content = json.loads((run / "options.json").read_text())
    (run / "options.json").write_text(json.dumps(content | parts))


def test_total_steps_are_as_the_trainer_wrote_them(run):
    (run / "log.txt").write_text("2026-01-01 00:00:00 Stopped at step 12 of 777\n")
    about(run, total_steps=777)
    assert "at step 12 of 777" in page_of(run)[0]
    for unknown in (None, "many", True):
        about(run, total_steps=unknown)
        assert "interrupted</span> at step 12<" in page_of(run)[0]


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory):
    """A run on two data sets, of a recipe that is given images."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("horses", "zebras"):
        np.save(folder / f"{name}.npy", np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8))
    sources = [str(folder / "horses.npy"), str(folder / "zebras.npy")]
    recipe = CycleGAN(width=2, blocks=1, layers=1, direction="ba")
    return Trainer(recipe, sources, batch=2, steps=2, log_every=1, outdir=str(folder)).train(progress=False)


def test_two_data_sets(unpaired, capsys):
    page, missing = page_of(unpaired)
    assert missing == [] and "<h1>cyclegan on horses and zebras</h1>" in page
    assert "Trained on 9 images of 3×16×16 (horses) and 9 images of 3×16×16 (zebras), 2 of each at a time." in page
    assert "<h3>Second data</h3>" in page and "<h3>Losses</h3>" in page and "<h3>Cycle</h3>" in page
    assert "Always from the same pictures: each place" in page and "<td>images</td>" in page
    assert "evaluate" not in page  # which compares what is drawn from latents
    command = facts.command(facts.read(unpaired))
    assert ["--data-b", str(unpaired.parent / "zebras.npy")] == command[command.index("--data-b") :][:2]
    assert main([*command[1:], "-n"]) == 0
    assert "horses: 9 images of 3×16×16 and zebras: 9 images" in capsys.readouterr().out


def test_draw_from_it_fits_the_recipe(unpaired, complete, tmp_path, monkeypatch, capsys):
    read = facts.read(unpaired)
    command = facts.drawing(read)
    assert command[4:] == ["--input", str(unpaired.parent / "zebras.npy")]  # from b to a
    monkeypatch.chdir(tmp_path)
    assert (
        main(command[1:]) == 0 and "9 pictures to generated/samples, and generated/grid.png" in capsys.readouterr().out
    )
    read.about["options"]["layout"] = "ab"  # the pictures that it was trained on hold both sides
    assert facts.drawing(read)[4:] == ["--input", "PICTURES"]
    assert facts.drawing(facts.read(complete))[4:] == ["--seeds", "0-63"]
    read.about["recipe"] = {"name": "cgan", "width": 2}
    assert facts.drawing(read)[4:] == []
    for other in ({"name": "not-installed"}, {"name": "cgan", "nonsense": 1}, {"name": "cgan", "width": -1}, 7):
        read.about["recipe"] = other
        assert facts.drawing(read)[4:] == ["--seeds", "0-63"]


@dataclass(frozen=True, kw_only=True)
class Listed(DCGAN):
    """Has an option of several numbers."""

    name = "listed"
    widths: tuple[int, ...] = (1, 2)
    """several numbers"""


def test_options_of_several_values_come_back(complete, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "listed", Listed)
    read = facts.read(complete)
    read.about["recipe"] |= {"name": "listed", "widths": [1, 2]}
    assert "--widths" not in facts.command(read)
    read.about["recipe"]["widths"] = [3, 4, 5]
    command = facts.command(read)
    assert command[command.index("--widths") + 1 :][:3] == ["3", "4", "5"] and main([*command[1:], "-n"]) == 0


def test_charts_come_by_families_in_order():
    names = [
        "step_ms_p50",
        "k",
        "loss_g",
        "grad_norm_g",
        "accuracy_real",
        "loss_d",
        "images_per_second",
        "accuracy_fake",
    ]
    drawn = [(title, [label for _, label in labels]) for title, labels in sections.charts(names)]
    assert drawn == [
        ("Losses", ["g", "d"]),
        ("K", ["k"]),
        ("Accuracy", ["real", "fake"]),
        ("Grad norm g", ["grad norm g"]),
        ("Samples per second", ["samples/s"]),
        ("Time of a step, ms", ["median"]),
    ]


@pytest.mark.parametrize(
    "names",
    [["code_error", "code_error_d", "code_error_g"], ["a", "a_b", "a_b_c", "a_b_d", "a_c"], ["_", "__", "x_", "_x", ""],
     ["loss"], ["loss_d_q", "loss_g"], [f"w_{k}" for k in range(11)], ["rollbacks", "Losses", "grad_norm", "1e9"]],
)  # fmt: skip
def test_every_figure_is_drawn_once(names):
    drawn = [name for _, labels in sections.charts(names) for name, _ in labels]
    assert sorted(drawn) == sorted(names)
    assert all(0 < len(labels) <= 4 for _, labels in sections.charts(names))  # as many as there are colours


def test_figures_of_lazy_players_are_in_some_rows(run):
    rows = [{"step": k, "images": 8 * k, "loss_d": 1.0 / k} for k in range(1, 41)]
    for row in rows[15::16]:
        row |= {"loss_path": 3.0, "path length": 2.0 * row["step"]}
    (run / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, missing = page_of(run)
    assert missing == [] and "<h3>Path length</h3>" in page
    assert "path from 3 to 3" in page and "path length from 32 to 64" in page  # the curves' descriptions
    assert '<th scope="col">Loss path</th>' in page  # in the table of numbers, though not in the last row


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match="is not a directory"):
        write(tmp_path / "nowhere", tmp_path / "page.html")
    (tmp_path / "holiday.png").write_bytes(b"")
    with pytest.raises(InputError, match="holds no run"):
        write(tmp_path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "last, age, word",
    [("Done: 12 steps", 9999, "finished"), ("Stopped at step 8 of 12", 0, "interrupted"),
     ("dcgan on digits: ...", 1, "running"), ("dcgan on digits: ...", 9999, "silent")],
)  # fmt: skip
def test_status(last, age, word, run):
    import os

    (run / "log.txt").write_text(f"2026-01-01 00:00:00 {last}\n")
    for name in ("log.txt", "stats.jsonl"):
        os.utime(run / name, (time.time() - age,) * 2)
    page, _ = page_of(run)
    assert f'class="badge {word}">' in page
    assert ("Go on with it" in page) == (word != "finished")


def test_what_a_file_says_is_text_and_never_markup(run):
    about = json.loads((run / "options.json").read_text())
    about["data"]["name"] = about["options"]["data"] = evil = '"><script>alert(1)</script>'
    (run / "options.json").write_text(json.dumps(about))
    (run / "log.txt").write_text(evil)
    (run / "metric-<i>.jsonl").write_text(json.dumps({"step": evil, evil: 1, "accuracy": evil}))
    (run / "stats.jsonl").write_text(json.dumps({"step": 1, evil: 2.0, "loss_d": 1.0}))
    write(run, run / "report.html")
    page = (run / "report.html").read_text()
    assert page.count("<script>") == 1 and "alert(1)" in page and "<i>" not in page


def test_a_long_run_makes_no_large_page(run):
    random = np.random.default_rng(0)
    grid = Image.fromarray(random.integers(0, 256, (526, 526, 3), np.uint8))  # nothing compresses less
    grid.save(run / "fakes-000100.png")
    for step in range(200, 10_000, 100):
        shutil.copy(run / "fakes-000100.png", run / f"fakes-{step:06d}.png")
    rows = [
        {"step": step, "images": 8 * step, "loss_d": float(d), "loss_g": float(g)}
        for step, d, g in zip(range(1, 50_001), random.normal(size=50_000), random.normal(size=50_000))
    ]
    (run / "stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, missing = page_of(run)
    assert missing == [] and "16 of 103 pictures are in this page" in page
    pictures = sum(map(len, re.findall(r"data:image/[^\"]*", page)))
    assert pictures < 6_000_000 and len(page) - pictures < 150_000


def test_the_command_line_writes_it(run, tmp_path, capsys, monkeypatch):
    assert main(["report", str(run)]) == 0
    assert f"wrote {run}/report.html" in capsys.readouterr().out
    (run / "reals.png").unlink()
    assert main(["report", str(run), "-o", str(tmp_path / "page.html")]) == 0
    assert "No reals.png" in capsys.readouterr().out and (tmp_path / "page.html").is_file()
    assert main(["report", str(run), "-o", str(tmp_path / "not" / "there.html")]) == 2
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "-o" in (err := capsys.readouterr().err) and "nowhere" in err
