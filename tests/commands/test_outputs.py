"""The folder that ``ganfast generate`` writes: samples alone, what was there before, and what reads it."""

import shutil
from pathlib import Path

import pytest
from commands import small
from commands.tiny import TINY
from PIL import Image

from ganfast.cli import main
from ganfast.commands.outputs import RECORD
from ganfast.data import open_dataset


def tree(folder: str = "g") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def generate(*argv: str, seeds: str = "0-3") -> int:
    return main(
        ["generate", "--network", small.dcgan(), "--outdir", "g", *(["--seeds", seeds] if seeds else []), *argv]
    )


def test_samples_lie_alone():
    assert generate(seeds="0-9") == 0
    assert tree() == {RECORD, "grid.png", *(f"samples/seed{k:06d}.png" for k in range(10))}
    assert len(open_dataset("g/samples")) == 10
    assert main(["data", "pack", "g/samples", "g.safetensors"]) == 0


@pytest.mark.parametrize(
    "what, file",
    [([], "samples/seed000000.png"), (["--grid", "2x2"], "grid.png"), (["--npz"], "samples.npz"),
     (["--interpolate", "1,2"], "interpolation.png")],
)  # fmt: skip
def test_what_is_there_is_refused_until_it_may_be_overwritten(what, file, fails):
    seeds = "" if "--interpolate" in what else "0-3"
    assert generate(*what, seeds=seeds) == 0
    before = Path("g", file).read_bytes()
    argv = ["generate", "--network", "generator.safetensors", "--outdir", "g", *what]
    message = fails(*argv)
    assert f"g/{Path(file).parts[0]}" in message and "is there already: name a new --outdir, or give --ov" in message
    assert main([*argv, *(["--seeds", "4-7"] if seeds else []), "--overwrite"]) == 0
    if what == []:
        assert tree() == {RECORD, "grid.png", *(f"samples/seed{k:06d}.png" for k in range(4, 8))}
    elif seeds:
        assert Path("g", file).read_bytes() != before


def test_overwriting_removes_what_was_written_and_nothing_else(fails):
    Path("g/samples").mkdir(parents=True)
    Path("g/notes.txt").write_text("mine")
    Path("outside.png").write_text("mine")
    assert generate() == 0 and generate("--npz") == 0  # side by side
    with open(Path("g", RECORD), "a") as lines:
        lines.write('"../outside.png"\n"samples/../notes.txt"\n"notes.txt"\n"samples/cut o')
    Path("g/samples/mine.png").write_text("mine")
    argv = ["generate", "--network", "generator.safetensors", "--outdir", "g", "--overwrite"]
    assert "g/samples/mine.png was not written by ganfast, which" in fails(*argv)
    assert main([*argv, "--grid", "2x2"]) == 0
    assert tree() == {RECORD, "grid.png", "notes.txt", "samples/mine.png"} and Path("outside.png").is_file()
    Path("h").mkdir()
    Path("h/grid.png").write_text("mine")
    argv[4] = "h"
    assert "h/grid.png was not written by ganfast, which" in fails(*argv)
    assert "h/grid.png is there already" in fails(*argv[:-1])


def test_a_call_that_was_stopped_can_be_overwritten(monkeypatch):
    written = []

    def write(file, picture):
        if len(written) == 2:
            raise KeyboardInterrupt
        Image.fromarray(picture[..., 0]).save(file)
        written.append(file)

    with monkeypatch.context() as patch:
        patch.setattr("ganfast.training.pictures.write_png", write)
        assert generate() == 130
    assert tree() == {RECORD, "samples/seed000000.png", "samples/seed000001.png"}
    assert generate("--overwrite", seeds="7") == 0
    assert tree() == {RECORD, "grid.png", "samples/seed000007.png"}


def test_translations_go_the_same_way(fails):
    Path("in").mkdir()
    Image.new("L", (16, 16)).save("in/a.png")
    argv = ["generate", "--network", small.cyclegan(), "--input", "in", "--outdir", "g"]
    assert main(argv) == 0
    assert tree() == {RECORD, "grid.png", "samples/a.png"}
    assert "g/samples/a.png is there already" in fails(*argv)
    assert "g/samples holds the pictures of --input" in fails(*argv[:-3], "g/samples", "--outdir", "g", "--overwrite")
    Path("in/a.png").rename("in/b.png")
    assert main([*argv, "--overwrite"]) == 0
    assert tree() == {RECORD, "grid.png", "samples/b.png"}


def test_the_folder_is_not_taken_for_data(fails):
    assert generate() == 0
    cyclegan = shutil.move(small.cyclegan(), "translator.safetensors")
    small.dcgan()
    for argv in (
        ["data", "pack", "g", "g.safetensors"],
        ["train", "dcgan", "--data", "g", *TINY],
        ["evaluate", "generator.safetensors", "--data", "g"],
        ["generate", "--network", cyclegan, "--input", "g", "--outdir", "h"],
    ):
        message = fails(*argv)
        assert "g was written by ganfast and holds grids beside the samples: give g/samples." in message
