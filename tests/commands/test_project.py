"""Codes of pictures and what is drawn from them; directions of a class."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import small
from PIL import Image

from ganfast import load
from ganfast.cli import main
from ganfast.metrics.lenet import fitted
from ganfast.models import latents
from ganfast.recipes import DCGAN
from ganfast.training import directions
from ganfast.training.pictures import to_uint8
from ganfast.training.sampling import decode_codes, slerp

QUICK = ["--steps", "3", "--outdir", "p"]


def faces(count: int = 3) -> str:
    Path("faces").mkdir(exist_ok=True)
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(f"faces/{'abcdefgh'[k]}.png")
    return "faces"


def project(path: str, *argv: str) -> dict:
    assert main(["project", "--network", path, "--input", faces(), *QUICK, *argv]) == 0
    with np.load("p/latents.npz") as arrays:
        return dict(arrays)


def test_codes_and_picture_are_written(capsys):
    path = small.saved(DCGAN(width=16, latent_dim=4))
    found = project(path)
    assert list(found["names"]) == ["a.png", "b.png", "c.png"] and found["codes"].shape == (3, 4)
    out = capsys.readouterr().out
    assert "wrote p/projection.png and p/latents.npz" in out and "a.png" in out and out.count("\n") == 6
    picture = np.asarray(Image.open("p/projection.png"))[::2, ::2]
    assert picture.shape == (3 * 18 - 2, 3 * 18 - 2)
    assert np.array_equal(picture[:16, 18:34], np.asarray(Image.open("faces/b.png")))
    made = to_uint8(decode_codes(load(path), torch.from_numpy(found["codes"])))[..., 0]
    assert np.array_equal(picture[36:, 18:34], made[1])
    same = project(path, "--overwrite", "--first", "2")
    assert list(same["names"]) == ["a.png", "c.png"] and "2 of 3 pictures (--first)" in capsys.readouterr().out
    assert np.allclose(same["codes"], found["codes"][[0, 2]], atol=1e-4)


def test_what_lies_between_the_codes_of_pictures(fails):
    path = small.saved(DCGAN(width=16, latent_dim=4))
    codes = torch.from_numpy(project(path)["codes"])
    argv = ["generate", "--network", path, "--latents", "p/latents.npz", "--outdir", "g"]
    assert main([*argv, "--interpolate", "2,0"]) == 0
    way = to_uint8(decode_codes(load(path), slerp(codes[2], codes[0], torch.linspace(0, 1, 16))))[..., 0]
    strip = np.asarray(Image.open("g/interpolation.png"))[::2, ::2]
    assert np.array_equal(strip[:, :16], way[0]) and np.array_equal(strip[:, 90:106], way[5])
    assert main([*argv, "--arithmetic", "0 - 1 + 2"]) == 0 and Path("g/arithmetic.png").is_file()
    assert "p/latents.npz has the rows 0 to 2, and not 3" in fails(*argv, "--interpolate", "1,3")
    assert "say what to draw of its rows" in fails(*argv)
    assert "it is for latents that are drawn" in fails(*argv, "--interpolate", "1,2", "--truncation", "0.5")
    other = small.saved(DCGAN(width=2, latent_dim=5), "other.safetensors")
    assert "has codes [3, 4], and those of this recipe have 5 numbers" in fails(
        "generate", "--network", other, "--latents", "p/latents.npz", "--interpolate", "0,1"
    )
    Path("p/latents.npz").write_bytes(b"cut off")
    assert "p/latents.npz cannot be read" in fails(*argv, "--interpolate", "0,1")


def test_classes_are_tried(fails, capsys):
    path = small.cgan()
    found = project(path)
    assert found["classes"].shape == (3,) and "class" in capsys.readouterr().out
    assert project(path, "--classes", "dog", "--overwrite")["classes"].tolist() == [1, 1, 1]
    assert main(["generate", "--network", path, "--latents", "p/latents.npz", "--interpolate", "0,1"]) == 0
    assert project(small.infogan(), "--overwrite")["codes"].shape == (3, 4)
    many = small.cgan(y=small.Spec("labels", (), tuple(map(str, range(17)))))
    assert "17 classes, which are too many to try" in fails("project", "--network", many, "--input", "faces")


@pytest.mark.parametrize(
    "make, argv, words",
    [
        (small.gan, [], "recipe gan with this data makes no images of latents or codes"),
        (small.cyclegan, [], "recipe cyclegan with this data makes no images of latents or codes"),
        (small.dcgan, ["--classes", "1"], "--classes: recipe dcgan needs no class beside a code"),
        (small.dcgan, ["--loss", "perceptual"], "--loss perceptual and --features WEIGHTS go together"),
        (small.dcgan, ["--steps", "-1"], "--steps must be at least 0"),
        (small.dcgan, ["--input", "nowhere"], "--input 'nowhere' is not there"),
    ],
)
def test_what_makes_no_sense_is_refused(make, argv, words, fails):
    assert words in fails("project", "--network", make(), "--input", faces(), *argv)


def test_directions_of_classes(fails, capsys, monkeypatch):
    monkeypatch.setattr(directions, "fitted", functools.partial(fitted, steps=60))
    path = small.saved(small.Bright())
    z = latents(range(60), 4)
    with torch.no_grad():
        images = to_uint8(small.Halves()(z))
    np.savez("halves.npz", images=images, labels=np.where(z[:, 0] > 0, "bright", "dark"))
    argv = ["directions", "--network", path, "--data", "halves.npz"]
    assert main([*argv, "--from", "dark", "--to", "bright", "--outdir", "d", "--rows", "2"]) == 0
    out = capsys.readouterr().out
    assert "dark → bright" in out and "wrote d/directions.png and d/directions.safetensors" in out
    assert Image.open("d/directions.png").size == (2 * (7 * 18 - 2), 2 * (2 * 18 - 2))
    assert "d/directions.png is there already" in fails(*argv, "--outdir", "d")
    assert "--to grey: halves has no class of this name" in fails(*argv, "--to", "grey")
    assert "is a generator without its run: name the data" in fails("directions", "--network", path)
