"""The command line as a person uses it, and every mistake as one sentence with exit code 2."""

import contextlib
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from commands.tiny import TINY
from PIL import Image

from ganfast import load
from ganfast.cli import COMMANDS, main
from ganfast.data import open_dataset
from ganfast.data.options import DataOptions


def png(path: Path, size=(20, 20), mode="RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


# -- what works ------------------------------------------------------------------------------------------------------


def test_help_names_every_command(capsys):
    for argv in ([], ["-h"], ["--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(command in out for command in COMMANDS) and "dcgan" in out
    assert main(["train", "-h"]) == 0 and main(["data", "-h"]) == 0 and main(["info", "-h"]) == 0
    assert main(["demo", "-h"]) == 0


@pytest.mark.parametrize(
    "argv",
    [["train", "dcgan"], ["train", "gan"], ["generate"], ["project"], ["directions"], ["export"], ["evaluate"],
     ["report"], ["animate"], ["data", "pack"], ["demo", "xy"]],
)  # fmt: skip
def test_every_option_is_explained(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*argv, "-h"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and "--" in out
    assert main([*argv[:-1], "-h"]) == 0 if len(argv) > 1 else True


def test_dry_run_writes_nothing(capsys):
    assert main(["train", "dcgan", "--data", "digits", *TINY, "-n"]) == 0
    out = capsys.readouterr().out
    assert "1797 images of 1×16×16" in out and "to step 2" in out and "runs/00000-dcgan-digits" in out
    assert "networks G 0.00 M, D 0.00 M parameters" in out
    assert not any(Path().iterdir())


def test_resume_needs_no_option_again(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "runs" / trained.name)
    assert main(["train", "dcgan", "--resume", str(run), "--steps", "4"]) == 0
    assert (run / "checkpoint-000004").is_dir()
    assert main(["train", "dcgan", f"--resume={run}", "--kimg", "0.024", "-n"]) == 0
    assert "from step 4 to step 6, batch 4" in capsys.readouterr().out


def test_the_newest_run_of_the_recipe_is_resumed(fails, capsys):
    assert "runs holds no run of recipe dcgan for --resume latest" in fails("train", "dcgan", "--resume", "latest")
    for seed in ("1", "2"):
        assert main(["train", "dcgan", "--data", "digits", *TINY, "--seed", seed]) == 0
    assert main(["train", "gan", "--data", "gaussians:ring8", "--width", "8", "--steps", "1"]) == 0
    capsys.readouterr()
    assert main(["train", "dcgan", "--resume", "latest", "--steps", "3"]) == 0
    err = capsys.readouterr().err
    first = "ganfast: --resume latest is runs/00001-dcgan-digits, the newest run of dcgan in runs\n"
    assert err.startswith(first) and "from step 2 to step 3" in err
    assert Path("runs/00001-dcgan-digits/checkpoint-000003").is_dir() and len(list(Path("runs").iterdir())) == 3
    Path("runs").rename("away")
    assert main(["train", "dcgan", "--resume=latest", "--outdir=away", "--steps", "4", "-n"]) == 0
    out, err = capsys.readouterr()
    assert "the newest run of dcgan in away" in err and "It would write to away/00001-dcgan-digits" in out
    assert main(["train", "dcgan", "--resume", "latest", "--outdir", "away"]) == 2
    err = capsys.readouterr().err
    assert "away/00001-dcgan-digits is finished, it has its 3 steps: give more --steps or --kimg" in err


def test_a_run_of_the_same_options_is_named_before_another_starts(capsys):
    argv = ["train", "dcgan", "--data", "digits", *TINY]
    assert main(argv) == 0 and "same options" not in capsys.readouterr().err
    said = "runs/00000-dcgan-digits is finished and has the same options; this starts a new run."
    assert main([*argv, "-n"]) == 0 and said in capsys.readouterr().out
    assert main([*argv, "--seed", "3"]) == 0 and "same options" not in capsys.readouterr().err
    shutil.rmtree("runs/00001-dcgan-digits")
    assert main(argv) == 0 and said in (err := capsys.readouterr().err)
    assert err.index(said) < err.index("run directory runs/00001-dcgan-digits")
    Path("runs/00001-dcgan-digits/checkpoint-000002").rename("runs/00001-dcgan-digits/checkpoint-000001")
    assert main([*argv, "-n"]) == 0
    said = "runs/00001-dcgan-digits with the same options is at step 1 of 2 (--resume runs/00001-dcgan-digits); this"
    assert said in capsys.readouterr().out


def test_generate_writes_what_it_says(trained, tmp_path, capsys):
    from ganfast.models import latents
    from ganfast.training.pictures import to_uint8

    assert main(["generate", "--network", str(trained), "--seeds", "3,7-9"]) == 0
    names = {path.name for path in Path("generated", "samples").iterdir()}
    assert names == {"seed000003.png", "seed000007.png", "seed000008.png", "seed000009.png"}
    assert Path("generated/grid.png").is_file()
    generator = load(trained)
    z = torch.zeros(16, generator.latent_dim)
    z[7] = latents([7], generator.latent_dim)[0]
    expected = to_uint8(generator(z))[7, :, :, 0]
    assert np.array_equal(np.asarray(Image.open("generated/samples/seed000007.png")), expected)

    network = str(trained / "generator.safetensors")
    assert main(["generate", "--network", network, "--grid", "4x2", "--outdir", "g", "--truncation", "0.7"]) == 0
    with Image.open("g/grid.png") as grid:
        assert grid.size == (2 * (4 * 18 - 2), 2 * (2 * 18 - 2))
    assert main(["generate", "--network", network, "--interpolate", "1,2,1", "--outdir", "i"]) == 0
    with Image.open("i/interpolation.gif") as gif:
        assert gif.format == "GIF" and gif.size == (16, 16)
    with Image.open("i/interpolation.png") as strip:
        assert strip.size == (2 * (16 * 18 - 2), 2 * (2 * 18 - 2))
    assert "wrote i/interpolation.png and i/interpolation.gif" in capsys.readouterr().out


def test_generate_shows_samples_in_a_terminal(trained, capsys):
    assert main(["generate", "--network", str(trained), "--seeds", "0-6", "--show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16 and max(map(len, lines)) == 5 * 16 and set("".join(lines)) <= set(" ░▒▓█")
    assert not any(Path().iterdir())


def test_points_from_training_to_evaluation(capsys):
    argv = ["train", "gan", "--data", "gaussians:ring8", "--width", "8", "--steps", "2"]
    assert main(argv) == 0
    run = "runs/00000-gan-gaussians-ring8"
    assert main(["generate", "--network", run, "--seeds", "0-99"]) == 0
    assert np.load("generated/points.npy").shape == (100, 2) and Path("generated/points.png").is_file()
    capsys.readouterr()
    assert main(["evaluate", run, "--data", "gaussians:ring8", "--samples", "50"]) == 0
    assert "of 8" in capsys.readouterr().out


def test_evaluate_labelled_images(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / trained.name)  # it keeps its scores
    assert main(["evaluate", str(run), "--data", "digits", "--samples", "100"]) == 0
    out = capsys.readouterr().out
    assert "classifier's accuracy" in out and out.count("share") == 2


def test_pack_then_train(capsys):
    for k in range(6):
        png(Path(f"images/{k}.png"))
    Path("images/notes.txt").write_text("no image")
    assert main(["data", "pack", "images", "packed.safetensors", "--size", "16", "--skip-bad"]) == 0
    assert "6 images of 3×16×16" in (out := capsys.readouterr().out) and "1 documents (notes.txt)" in out
    assert main(["train", "dcgan", "--data", "packed.safetensors", *TINY]) == 0


def test_pack_takes_the_data_options_and_says_what_was_noticed(capsys, monkeypatch):
    asked = {}

    def packed(src, dest, targets=None, **options):
        asked.update(options, src=src, dest=dest, targets=targets)
        data = open_dataset("digits", size=16)
        data.notes = ("Two pictures are alike.", "Three are grey.")
        return data

    monkeypatch.setattr("ganfast.data.sources.pack", packed)
    argv = ["data", "pack", "a", "b.safetensors", "--fit", "pad", "--split", "test", "--transpose", "--targets", "c"]
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["Two pictures are alike.", "Three are grey."]
    given = {"fit": "pad", "split": "test", "transpose": True, "src": "a", "dest": "b.safetensors", "targets": "c"}
    assert asked == vars(DataOptions()) | given
    with pytest.raises(SystemExit):
        main(["data", "pack", "-h"])
    out = capsys.readouterr().out
    assert out.index("SRC") < out.index("DEST") < out.index("--size") and "--skip-unlabelled" in out


def test_skip_bad_counts_what_it_skips(capsys):
    for k in range(6):
        png(Path(f"images/{k}.png"))
    Path("images/broken.png").write_bytes(b"\x89PNG\r\n")
    assert main(["train", "dcgan", "--data", "images", *TINY, "--skip-bad"]) == 0
    assert "6 images of 3×16×16 (1 files that cannot be decoded left out)" in capsys.readouterr().err


def test_info_prints_the_measured_choices(capsys, monkeypatch, tmp_path):
    from ganfast.ops import _tuning

    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path / "cache"))
    assert main(["info", "--tuning"]) == 0
    assert f"{tmp_path / 'cache' / 'tuning.json'}: 0 measured choices" in capsys.readouterr().out

    def fails():
        raise RuntimeError("out of shared memory")

    _tuning.choose(("conv_bn_act", (2, 3)), {"reference": lambda: None, "large": fails}, torch.device("cpu"))
    assert main(["info", "--tuning"]) == 0
    out = capsys.readouterr().out
    assert "1 measured choices" in out and "\ncpu, torch " in out
    assert "reference    ('conv_bn_act', (2, 3)): reference " in out
    assert "large failed (RuntimeError: out of shared memory)" in " ".join(
        out.split()
    )  # where lines break depends on times


def test_info_lists_operators_and_backends(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "torch 2" in out
    (row,) = [line for line in out.splitlines() if line.startswith("sigmoid_bce ")]
    assert row.endswith("reference")  # on a CPU, beside what is there
    if not torch.cuda.is_available():
        assert "not on cuda: cuda, reference, triton: torch sees no CUDA device\n" in out


@pytest.mark.parametrize(
    "argv",
    [[], ["train"], ["train", "cyclegan"], ["generate"], ["project"], ["directions"], ["export"], ["evaluate"],
     ["report"], ["data"], ["data", "pack"], ["info"]],
    ids=" ".join,
)  # fmt: skip
def test_help_fits_a_terminal_of_80_columns(argv, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        main([*argv, "-h"])
    lines = capsys.readouterr().out.splitlines()
    assert lines and not [line for line in lines if len(line) > 80 and "usage:" not in line]


def test_help_of_training_has_a_box_for_each_subject(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(["train", "wgan-gp", "-h"])
    out = capsys.readouterr().out
    boxes = re.split(r"(?m)^ (?=[\w-]* ?options *$)", out)[1:]  # without frames, as for no terminal
    assert [box.splitlines()[0].strip() for box in boxes] == ["options", *(f"{word} options" for word in
        ("data", "run", "optimisation", "wgan-gp", "device", "saving"))]  # fmt: skip
    firsts = [re.search(r"(?m)^  (--[a-z][\w-]+)", box)[1] for box in boxes[1:]]
    assert firsts == ["--data", "--steps", "--batch", "--latent-dim", "--device", "--checkpoint-every"]
    assert "--size N|WxH" in out and "{None" not in out and "--layout {ab,ba}" in out


def test_flags_of_a_resumed_run_can_be_given_again_and_taken_back(tmp_path, capsys):
    png(Path("images/a.png")), png(Path("images/b.png")), png(Path("images/c.png")), png(Path("images/d.png"))
    assert main(["train", "dcgan", "--data", "images", *TINY, "--skip-bad"]) == 0
    run = "runs/00000-dcgan-images"
    for flag, stored in (("--skip-bad", True), ("--no-skip-bad", False)):
        assert main(["train", "dcgan", "--resume", run, flag, "--steps", "3" if stored else "4"]) == 0
        assert json.loads(Path(run, "options.json").read_text())["options"]["skip_bad"] is stored


# -- what a person can get wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, words",
    [
        (["trian"], ["'trian'", "train?"]),
        (["train", "dcgn", "--data", "digits"], ["'dcgn'", "dcgan?"]),
        (["train", "stylegan9", "--data", "digits"], ["'stylegan9'", "gan?"]),
        (["train", "pix3", "--data", "digits"], ["'pix3'", "dcgan", "gan"]),
        (["data", "unpack"], ["'unpack'", "pack"]),
        (["info", "--nope"], ["'--nope'"]),
        (["train", "dcgan", "--data", "missing/folder", *TINY], ["missing/folder"]),
        (["train", "dcgan", "--data", "gaussians:ring9", *TINY], ["ring9", "ring8"]),
        (["train", "dcgan", "--data", "gaussians:ring8"], ["dcgan needs images", "gaussians-ring8", "give a folder"]),
        (["train", "dcgan", "--data", "digits", "--data-b", "digits", *TINY], ["one data set", "--data-b"]),
        (["train", "cyclegan", "--data", "digits", "--width", "2"], ["two data sets", "--data-b"]),
        (["train", "dcgan", "--data", "digits", "--size", "48"], ["48", "32", "64"]),
        (["train", "dcgan", "--data", "digits", "--size", "512"], ["512", "256"]),
        (["train", "dcgan", "--data", "digits", "--size", "64x"], ["--size 64x", "128x64"]),
        (["train", "dcgan", "--data", "digits", "--channels", "2"], ["--channels 2", "1 (grey)"]),
        (["train", "dcgan", "--data", "digits", "--batch", "0"], ["--batch", "got 0"]),
        (["train", "dcgan", "--data", "digits", "--steps", "5", "--kimg", "3"], ["--kimg, --steps"]),
        (["train", "dcgan", "--data", "digits", "--lr", "-1"], ["--lr", "got -1.0"]),
        (["train", "dcgan", "--data", "digits", "--d-steps", "0"], ["--d-steps", "got 0"]),
        (["train", "dcgan", "--data", "digits", "--batch", "5000"], ["--batch", "5000", "1797"]),
        (["train", "dcgan", "--data", "digits", "--device", "cuda:77"], ["cuda:77", "--device cpu"]),
        (["train", "dcgan", "--resume", "nowhere"], ["nowhere", "--resume"]),
        (["generate", "--network", "nowhere"], ["nowhere", "--network"]),
        (["generate", "--network", "nowhere", "--seeds", "x"], ["'x'", "seeds"]),
        (["evaluate", "nowhere", "--data", "digits"], ["nowhere"]),
        (["evaluate", "--network", "nowhere"], ["--network", "ganfast evaluate RUN"]),
        (["data", "pack", "missing", "out.safetensors"], ["missing"]),
        (["data", "pack", "digits", "out.bin"], ["out.bin", ".safetensors"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_one_sentence_that_names_the_mistake(argv, words, fails):
    message = fails(*argv)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "argv, word",
    [
        (["train", "dcgan"], "--data"),
        (["train", "dcgan", "--data", "digits", "--nope", "3"], "--nope"),
        (["train", "dcgan", "--data", "digits", "--batch", "many"], "--batch"),
        (["train", "dcgan", "--data", "digits", "--loss", "hinge?"], "--loss"),
        (["generate"], "--network"),
        (["export", "--network", "x"], "--onnx"),
        (["report"], "RUN"),
        (["evaluate"], "RUN"),
        (["data", "pack", "digits"], "DEST"),
    ],
)
def test_options_that_do_not_parse(argv, word, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and word in err and "Traceback" not in out + err
    assert not any(Path().iterdir())


def bad_folder(name: str, content: bytes | None = None, good: int = 5) -> str:
    for k in range(good):
        png(Path(f"images/{k}.png"))
    if content is not None:
        Path("images", name).write_bytes(content)
    return "images"


def truncated_png() -> bytes:
    content = png(Path("other/whole.png"), (64, 64)).read_bytes()
    return content[: len(content) // 2]


def one_pixel() -> bytes:
    return png(Path("other/one.png"), (1, 1)).read_bytes()


def bomb() -> bytes:
    """A PNG that says in its header that it has 40,000 × 40,000 pixels."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "name, content",
    [("notes.what", lambda: b"just words"), ("text.png", lambda: b"just words"), ("cut.png", truncated_png),
     ("one.png", one_pixel), ("bomb.png", bomb), ("empty.png", lambda: b"")],
)  # fmt: skip
def test_a_bad_file_among_images_is_named_and_can_be_skipped(name, content, fails, capsys):
    folder = bad_folder(name, content())
    message = fails("train", "dcgan", "--data", folder, *TINY)
    assert name in message and "--skip-bad" in message
    assert main(["train", "dcgan", "--data", folder, *TINY, "--skip-bad"]) == 0
    assert "5 images" in (err := capsys.readouterr().err) and "1 files" in err


def test_sixteen_bit_palette_and_alpha_images_train():
    bad_folder("none")
    png(Path("images/palette.png"), mode="P")
    png(Path("images/alpha.png"), mode="RGBA")
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160).save("images/deep.png")
    assert main(["train", "dcgan", "--data", "images", *TINY]) == 0


def test_an_empty_folder(fails):
    Path("images").mkdir()
    assert "images" in fails("train", "dcgan", "--data", "images", *TINY)


def test_a_truncated_zip_and_idx(fails):
    with zipfile.ZipFile("images.zip", "w") as archive:
        for k in range(5):
            archive.write(png(Path(f"images/{k}.png")), f"{k}.png")
    whole = Path("images.zip").read_bytes()
    Path("images.zip").write_bytes(whole[: len(whole) // 2])
    assert "images.zip" in fails("train", "dcgan", "--data", "images.zip", *TINY)
    header = bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28])
    Path("train-images-idx3-ubyte").write_bytes(header + bytes(28 * 28 * 4))
    assert "idx3" in fails("train", "dcgan", "--data", "train-images-idx3-ubyte", *TINY)


def test_a_checkpoint_of_another_recipe(trained, fails):
    message = fails("train", "gan", "--data", "gaussians:ring8", "--resume", trained)
    assert "dcgan" in message and "gan" in message


def test_a_damaged_checkpoint(trained, tmp_path, fails):
    run = shutil.copytree(trained, tmp_path / "runs" / trained.name)
    state = run / "checkpoint-000002" / "state.pt"
    state.write_bytes(state.read_bytes()[:-7])
    assert "state.pt is damaged" in fails("train", "dcgan", "--resume", run, "--steps", "4")
    assert (run / "generator.safetensors").is_file()


@pytest.mark.parametrize(
    "option, words",
    [
        (["--beta1", "0.9"], "--beta1 0.5, not 0.9"),
        (["--width", "4"], "--width 2, not 4"),
        (["--batch", "8"], "--batch 4, not 8"),
        (["--loss", "minimax"], "--loss non-saturating, not minimax"),
        (["--lr-decay", "linear"], "--lr-decay none, not linear"),
        (["--ema-decay", "0.5"], "--ema-decay 0.999, not 0.5"),
    ],
)
def test_an_option_that_would_change_the_method(option, words, trained, fails):
    message = fails("train", "dcgan", "--resume", trained, "--steps", "4", *option)
    assert words in message and "which would change the method" in message and "--resume" in message


def test_rates_and_intervals_may_change_at_resume(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "runs" / trained.name)
    changed = ["--lr", "0.1", "--log-every", "1", "--sample-every", "3", "--checkpoint-every", "1"]
    assert main(["train", "dcgan", "--resume", str(run), "--steps", "4", *changed]) == 0
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["step"] > 2] == [3, 4]
    assert (run / "fakes-000003.png").is_file() and (run / "checkpoint-000003").is_dir()
    options = json.loads((run / "options.json").read_text())
    assert options["recipe"]["lr"] == 0.1 and options["options"]["log_every"] == 1 and options["total_steps"] == 4


def test_a_run_without_checkpoints_begins_again_in_place(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "runs" / trained.name)
    shutil.rmtree(run / "checkpoint-000002")
    assert main(["train", "dcgan", "--resume", str(run)]) == 0
    assert "it begins again, in the same directory" in capsys.readouterr().err
    assert (run / "checkpoint-000002").is_dir() and [path.name for path in run.parent.iterdir()] == [run.name]
    assert (run / "fakes.png").read_bytes() == (trained / "fakes.png").read_bytes()
    for one, other in zip(load(run).parameters(), load(trained).parameters(), strict=True):
        assert torch.equal(one, other)


def test_generate_refuses_what_it_cannot_do(trained, fails):
    for argv, word in (
        (["--grid", "9x9", "--seeds", "0-3"], "81 samples, 4 seeds give 4"),
        (["--direction", "ba"], "--direction ba"),
        (["--classes", "3"], "--classes 3"),
        (["--input", "digits"], "--input digits"),
        (["--skip-bad"], "--skip-bad"),
        (["--interpolate", "4"], "--interpolate"),
        (["--truncation", "-1"], "--truncation"),
        (["--grid", "2x2", "--interpolate", "1,2"], "--grid"),
        (["--device", "cuda:9"], "cuda:9"),
    ):
        assert word in fails("generate", "--network", trained, "--outdir", trained, *argv)


def test_an_outdir_that_cannot_be_made(fails):
    Path("file").write_text("")
    assert "--outdir" in fails("train", "dcgan", "--data", "digits", "--outdir", "file/runs", *TINY)
