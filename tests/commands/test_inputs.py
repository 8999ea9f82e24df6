"""``ganfast generate --input``: recipes that are given pictures, and those that reconstruct."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import small
from PIL import Image

from ganfast import load, models
from ganfast.cli import main
from ganfast.commands import translating
from ganfast.data.images import Frame, to_frame, upright
from ganfast.training.pictures import to_uint8


def picture(path: str, seed: int = 0, size=(20, 16)) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def tensor(path: str, channels: int = 1) -> torch.Tensor:
    pixels = torch.tensor(to_frame(upright(path), Frame(16, 16, channels)))
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def whole(path: str, channels: int = 1) -> torch.Tensor:
    image = upright(path)
    pixels = torch.tensor(to_frame(image, Frame(image.height, image.width, channels)))
    return pixels.permute(2, 0, 1)[None] / 127.5 - 1


def written(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def names(folder: str = "generated") -> set[str]:
    """Names of the samples, and of what lies beside them."""
    found = {path.name for path in Path(folder).glob("[!.]*")} - {"samples"}
    return found | {path.name for path in Path(folder, "samples").glob("*")}


@pytest.fixture
def folder() -> str:
    for k, name in enumerate(("a.png", "b.jpg", "deep/er/c.png")):
        picture(f"images/{name}", k)
    return "images"


@torch.no_grad()
def test_a_translation_for_each_picture(folder, capsys):
    file = small.cyclegan()
    assert main(["generate", "--network", file, "--input", folder]) == 0
    assert "wrote 3 pictures to generated/samples, and generated/grid.png" in capsys.readouterr().out
    assert names() == {"a.png", "b.png", "deep-er-c.png", "grid.png"}
    trained = load(file)
    for size, read, width in (([], whole, 20), (["--size", "16"], tensor, 16)):  # its own; as in training
        assert main(["generate", "--network", file, "--input", folder, "--overwrite", *size]) == 0
        wanted = to_uint8(trained(read("images/a.png")))[0, :, :, 0]
        assert np.array_equal(written("generated/samples/a.png"), wanted)
        grid = written("generated/grid.png")[::2, ::2]
        assert grid.shape == (16, 6 * (width + 2) - 2)  # three pairs
        assert np.array_equal(grid[:, :width], to_frame(upright("images/a.png"), Frame(16, width, 1))[..., 0])
        assert np.array_equal(grid[:, width + 2 : 2 * width + 2], wanted)


@torch.no_grad()
def test_pictures_of_any_size_are_mirrored_to_a_multiple_and_cut_back(capsys):
    sizes = {"a": (37, 22), "b": (16, 300), "c": (40, 64)}
    for k, (name, size) in enumerate(sizes.items()):
        picture(f"images/{name}.png", k, size)
    file = small.cyclegan(channels=3)
    assert main(["generate", "--network", file, "--input", "images", "--side-by-side"]) == 0
    trained = load(file)
    for name, (width, height) in sizes.items():
        x, pair = whole(f"images/{name}.png", 3), written(f"generated/samples/{name}.png")
        assert pair.shape == (height, 2 * width, 3)
        assert np.array_equal(pair[:, :width], np.asarray(Image.open(f"images/{name}.png")))
        high, wide = -height % 4, -width % 4
        padded = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2), mode="reflect")
        made = trained(padded)[..., high // 2 : high // 2 + height, wide // 2 : wide // 2 + width]
        assert np.abs(pair[:, width:].astype(int) - to_uint8(made)[0]).max() <= 1
    # three pairs in cells of the largest sides: 300 pixels become 256
    assert written("generated/grid.png").shape == (256, 6 * (40 + 2) - 2, 3)


def test_super_resolution_of_pictures_of_any_size():
    file = small.saved(small.Doubled())
    picture("images/a.png", 0, (21, 10))
    assert main(["generate", "--network", file, "--input", "images", "--side-by-side"]) == 0
    pair = written("generated/samples/a.png")
    wanted = to_uint8(whole("images/a.png"))[0, :, :, 0].repeat(2, 0).repeat(2, 1)
    assert np.array_equal(pair[..., 0], np.concatenate([wanted, 255 - wanted], 1))
    np.save("small.npy", np.zeros((2, 16, 16, 1), np.uint8))  # no files: as in training, or at a usual size
    assert main(["generate", "--network", file, "--input", "small.npy", "--outdir", "n"]) == 0
    assert written("n/samples/000001.png").shape == (32, 32)


def test_mirroring_as_often_as_it_takes():
    x = torch.arange(3.0).expand(1, 1, 3, 3)
    assert translating.mirrored(x, 3, 12)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    for height, width in ((3, 3), (4, 7), (9, 12)):
        assert torch.equal(translating.central(translating.mirrored(x, height, width), 3, 3), x)


@torch.no_grad()
def test_the_other_direction(folder):
    file = small.cyclegan(channels=3)
    for way in ("ab", "ba"):
        assert (
            main(["generate", "--network", file, "--input", f"{folder}/a.png", "--direction", way, "--overwrite"]) == 0
        )
        generator = load(file).networks[f"G_{way}"]
        wanted = to_uint8(generator(whole("images/a.png", 3)))[0]
        assert names() == {"a.png", "grid.png"}
        assert (
            abs(written("generated/samples/a.png").astype(int) - wanted).max() <= 1
        )  # rounding in another memory layout


@torch.no_grad()
def test_reconstructions(folder, capsys):
    file = small.began()
    assert main(["generate", "--network", file, "--input", folder, "--outdir", "again"]) == 0
    trained = load(file)
    assert np.array_equal(
        written("again/samples/a.png"), to_uint8(trained.reconstruct(tensor("images/a.png")))[0, :, :, 0]
    )
    assert main(["generate", "--network", file, "--seeds", "0-3"]) == 0  # and it draws
    assert names() == {*(f"seed{k:06d}.png" for k in range(4)), "grid.png"}
    for option in (["--seeds", "3"], ["--truncation", "1"]):
        assert main(["generate", "--network", file, "--input", folder, *option]) == 2
        assert f"{' '.join(option)[:9]}" in (err := capsys.readouterr().err) and "reconstructs" in err


def test_reconstructions_by_a_recipe_with_labels(folder, fails):
    file = small.saved(small.Darker())
    assert main(["generate", "--network", file, "--input", f"{folder}/a.png"]) == 0
    assert names() == {"a.png", "grid.png"}
    assert np.array_equal(written("generated/samples/a.png"), to_uint8(tensor("images/a.png") / 2)[0, :, :, 0])
    message = fails("generate", "--network", file, "--input", folder, "--classes", "1")
    assert "--classes 1" in message and "reconstructs" in message


@torch.no_grad()
def test_pictures_classes_and_seeds_at_once(folder):
    file = small.saved(small.Styles())
    argv = ["generate", "--network", file, "--input", folder]
    assert main([*argv, "--classes", "dog,7", "--seeds", "5,6"]) == 0
    assert len(names()) == 3 * 4 + 1 and "deep-er-c-class3-seed000006.png" in names()
    trained = load(file)
    assert trained.arguments == ("z", "x", "y")
    wanted = trained(models.latents([6], 2), tensor("images/b.jpg"), torch.tensor([1]))
    assert np.array_equal(written("generated/samples/b-class1-seed000006.png"), to_uint8(wanted)[0, :, :, 0])
    grid = written("generated/grid.png")[::2, ::2]
    assert grid.shape == (3 * 18 - 2, 5 * 18 - 2)  # a row for each: picture, four outputs
    assert main([*argv, "--outdir", "all"]) == 0  # every class, one seed
    assert names("all") == {f"{n}-class{k}.png" for n in ("a", "b", "deep-er-c") for k in range(4)} | {"grid.png"}


def test_a_zip_an_array_and_a_built_in_set(folder, monkeypatch, capsys):
    file = small.cyclegan()
    with zipfile.ZipFile("images.zip", "w") as archive:
        archive.write("images/a.png", "inside/a.png")
        archive.write("images/b.jpg", "b.jpg")
    assert main(["generate", "--network", file, "--input", "images.zip", "--outdir", "."]) == 0
    assert {"inside-a.png", "b.png", "grid.png", "images.zip"} <= names(".")
    assert {path.name for path in Path("samples").iterdir()} == {"inside-a.png", "b.png"}
    np.save("three.npy", np.zeros((3, 16, 16, 1), np.uint8))
    assert main(["generate", "--network", file, "--input", "three.npy", "--outdir", ".", "--overwrite"]) == 0
    assert main(["generate", "--network", file, "--input", "three.npy", "--outdir", "n"]) == 0
    assert names("n") == {"000000.png", "000001.png", "000002.png", "grid.png"}
    monkeypatch.setattr(translating, "SHOWN", 4)
    assert main(["generate", "--network", file, "--input", "three.npy", "--outdir", "n", "--overwrite"]) == 0
    assert "3 pictures to n/samples, and n/grid.png (the first 2 of --input)" in capsys.readouterr().out
    assert written("n/grid.png").shape == (2 * 16, 2 * (4 * 18 - 2))


def test_pairs_in_a_terminal(folder, capsys):
    assert main(["generate", "--network", small.cyclegan(), "--input", folder, "--show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * 8 and max(map(len, lines)) <= 2 * 16 and not Path("generated").exists()


def test_names_are_short_apart_and_in_one_folder():
    def of(*titles, suffixes=("",)):
        return [name for found in translating.names(list(titles), list(suffixes)) for name in found]

    assert of("a.png", "b/a.png") == ["a.png", "b-a.png"]
    assert of("a.png", "a.jpg", "grid.png") == ["a.png", "a.jpg.png", "grid.png"]
    assert of("A.png", "a.png", "a.png.x") == ["A.png", "a.png.png", "a.png.x.png"]  # some disks know no case
    assert of("../../x.png", "/etc/y.png", "..\\z.png") == ["..-..-x.png", "-etc-y.png", "..-z.png"]
    assert of("a.png", suffixes=["-class0", "-class1"]) == ["a-class0.png", "a-class1.png"]
    for name in of("ü" * 300 + ".png", "ü" * 300 + ".jpg"):
        assert len(name.encode()) < 255
    many = of(*["x.png"] * 500)
    assert len(set(many)) == 500


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], ["recipe cyclegan is given images", "--input"]),
        (["--input", "nowhere"], ["--input 'nowhere' is not there"]),
        (["--input", ""], ["--input '' is not there"]),
        (["--input", "gaussians:ring8"], ["--input gaussians:ring8 is points"]),
        (["--input", "notes.txt"], ["notes.txt: a table or a text", "give the folder"]),
        (["--input", "images"], ["broken.png", "--skip-bad"]),
        (["--input", "empty"], ["empty: holds no images"]),
        (["--input", "cut.zip"], ["cut.zip", "zip"]),
        (["--input", "good", "--outdir", "good"], ["good holds the pictures of --input", "--outdir"]),
        (["--input", "good/a.png", "--outdir", "good"], ["good holds the pictures of --input"]),
        (["--input", "good", "--seeds", "3"], ["--seeds 3", "recipe cyclegan draws no latents"]),
        (["--input", "good", "--truncation", "0.5"], ["--truncation 0.5", "draws no latents"]),
        (["--input", "good", "--classes", "3"], ["--classes 3", "not given labels"]),
        (["--input", "good", "--grid", "2x2"], ["--input and --grid"]),
        (["--input", "good", "--npz"], ["--input and --npz"]),
        (["--input", "good", "--interpolate", "1,2"], ["--input and --interpolate"]),
        (["--npz"], ["recipe cyclegan is given images", "--input"]),
        (["--skip-bad"], ["--skip-bad", "--input"]),
        (["--side-by-side"], ["--side-by-side is of the files that are made of --input"]),
        (["--input", "good", "--side-by-side", "--show"], ["--side-by-side"]),
        (["--size", "16"], ["--size 16 is of --input"]),
        (["--input", "good", "--size", "17"], ["--size 17: a size is a power of two"]),
        (["--input", "points.npy"], ["points.npy"]),
    ],
)
def test_what_cannot_be_translated_is_one_sentence(argv, words, fails):
    picture("good/a.png"), picture("images/a.png")
    Path("images/broken.png").write_bytes(b"\x89PNG\r\n")
    Path("notes.txt").write_text("just words")
    Path("empty").mkdir()
    Path("cut.zip").write_bytes(b"PK\x03\x04")
    np.save("points.npy", np.zeros((4, 2), np.float32))
    message = fails("generate", "--network", small.cyclegan(), *argv)
    assert all(word in message for word in words), message


def test_bad_files_can_be_left_out(capsys):
    picture("images/a.png")
    Path("images/broken.png").write_bytes(b"\x89PNG\r\n")
    argv = ["generate", "--network", small.cyclegan(), "--input", "images", "--skip-bad"]
    assert main(argv) == 0
    assert (
        "1 picture to generated/samples, and generated/grid.png; 1 files left out that cannot be decoded"
        in capsys.readouterr().out
    )
    assert names() == {"a.png", "grid.png"}


def test_a_direction_that_is_none(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["generate", "--network", "x", "--direction", "up"])
    assert "--direction" in capsys.readouterr().err


@torch.no_grad()
def test_a_picture_for_each_attribute(folder, capsys):
    file = small.of_attributes()
    call = ["generate", "--network", file, "--input", f"{folder}/a.png", "--overwrite"]
    assert main(call) == 0
    assert names() == {"a-hair=black.png", "a-hair=red.png", "a-beard.png", "grid.png"}
    assert main([*call, "--attributes", "hair=red+beard=0,beard=0.5"]) == 0
    assert names() == {"a-hair=red+beard=0.png", "a-beard=0.5.png", "grid.png"}
    trained, x = load(file), tensor("images/a.png")
    own = trained.attributes(x)
    for name, wanted in ("hair=red+beard=0", [0.0, 1, 0]), ("beard=0.5", [*own[0, :2], 0.5]):
        made = to_uint8(trained(x, torch.tensor([wanted])))[0, :, :, 0]
        assert np.array_equal(written(f"generated/samples/a-{name}.png"), made)
    assert main([*call, "--attributes", "hair=blue"]) == 2
    assert "'hair=blue' is not an attribute: give some of hair=black, hair=red, beard" in capsys.readouterr().err
    assert main([*call, "--strip"]) == 2 and "recipe stargan has no steps" in capsys.readouterr().err
    assert main(["generate", "--network", small.cyclegan(), "--input", folder, "--attributes", "beard"]) == 2
    assert "recipe cyclegan is not given images and attributes" in capsys.readouterr().err


@torch.no_grad()
def test_steps_to_attributes(folder):
    file = small.of_attributes("ganimation")
    call = ["generate", "--network", file, "--input", folder, "--strip", "--attributes", "hair=red,beard"]
    assert main(call) == 0
    assert names() == {"strip.png"}
    strip = written("generated/strip.png")[::2, ::2]
    assert strip.shape == (6 * 18 - 2, 8 * 18 - 2)  # three pictures, two attributes, eight steps
    trained, x = load(file), tensor("images/a.png")
    own = trained.attributes(x)
    wanted = torch.tensor([[0.0, 1, own[0, 2]]])
    made = to_uint8(trained(x, own.lerp(wanted, 3 / 7)))[0, :, :, 0]
    assert np.abs(strip[:16, 3 * 18 : 3 * 18 + 16].astype(int) - made).max() <= 1
