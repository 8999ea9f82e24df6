import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import small
from commands.tiny import TINY
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from ganfast.cli import main
from ganfast.commands import evaluate
from ganfast.data.columns import Spec
from ganfast.data.stacked import stacked
from ganfast.metrics import attributes, lenet
from ganfast.models.squeezenet import SqueezeNet
from ganfast.recipes import CGAN, DCGAN


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / trained.name)


def rows(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metric-classes.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_scores_of_a_run_stay_in_it(run, capsys):
    argv = ["evaluate", "--samples", "50"]
    assert main([*argv, str(run)]) == 0
    assert f"kept in {run}/metric-classes.jsonl" in capsys.readouterr().out
    assert main([*argv, str(run / "checkpoint-000002")]) == 0  # of the run's checkpoint, and with its step
    first, *others = rows(run)
    assert first["agreement"] is None
    assert len(others) == 1
    assert first["metric"] == "classes" and first["step"] == 2 and first["samples"] == 50 and first["data"] == "digits"
    assert 0 <= first["distance"] <= 1 and len(first["fake_shares"]) == 10
    for other in others:  # the averaged generator of the last step each time
        assert {**other, "time": first["time"]} == first


def test_other_data_than_it_was_trained_on(run, capsys):
    assert main(["evaluate", str(run), "--data", "gaussians:ring8", "--samples", "16"]) == 2
    assert "--data gaussians:ring8 is points, and this generator makes images" in capsys.readouterr().err


def test_no_samples_at_all(run, capsys):
    assert main(["evaluate", str(run), "--data", "digits", "--samples", "0"]) == 2
    assert "--samples must be at least 1, got 0" in capsys.readouterr().err


def test_scores_of_a_file_are_printed_alone(run, tmp_path, capsys):
    (tmp_path / "alone").mkdir()
    file = shutil.copy(run / "generator.safetensors", tmp_path / "alone" / "g.safetensors")
    assert main(["evaluate", str(file), "--data", "digits", "--samples", "50"]) == 0
    assert "kept in" not in (out := capsys.readouterr().out) and "distance" in out
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["g.safetensors"]


def test_classes_that_were_asked_for_are_compared(capsys):
    digits = Spec("labels", (), tuple(map(str, range(10))))
    small.saved(CGAN(width=2, latent_dim=4), "run/generator.safetensors", y=digits)
    Path("run/options.json").write_text("{}")
    assert main(["evaluate", "run", "--data", "digits", "--samples", "40"]) == 0
    assert "samples that it assigns to their own class" in capsys.readouterr().out
    (row,) = [json.loads(line) for line in Path("run/metric-classes.jsonl").read_text().splitlines()]
    assert 0 <= row["agreement"] <= 1 and row["step"] == 3


def test_codes_of_a_recipe_are_no_classes_of_the_data(capsys):
    assert main(["evaluate", small.infogan(), "--data", "digits", "--samples", "20"]) == 0
    assert "own class" not in (out := capsys.readouterr().out) and "distance" in out
    assert "of 10, of 1797 rows" in out and "normalised mutual information" in out  # a clustering by Q


def test_what_cannot_be_evaluated(fails):
    message = fails("evaluate", small.saved(small.Styles()), "--data", "digits", "--samples", "8")
    assert "recipe styles is given images" in message and "drawn from latents" in message and "--input" in message
    message = fails("evaluate", small.cyclegan(), "--data", "digits", "--samples", "8")
    assert "recipe cyclegan needs two sets" in message and "--data-b" in message
    message = fails("evaluate", small.cyclegan(), "--data", "digits", "--data-b", "digits", "--samples", "8")
    assert "unpaired" in message and "--paired" in message and "--features" in message
    message = fails("evaluate", small.cgan(), "--data", "digits", "--paired")
    assert "--paired" in message and "does not translate" in message
    message = fails("evaluate", small.cgan(), "--data", "digits", "--samples", "8")  # of four classes
    assert "4 classes" in message and "digits has 10" in message and "--data" in message
    message = fails("evaluate", small.saved(small.Captions()), "--data", "digits", "--samples", "8")
    assert "recipe captions is given tokens (t)" in message


# -- the run's own data -----------------------------------------------------------------------------------------------


def pictures(folder: str, classes: list[int], mode: str = "RGB") -> str:
    """A picture for each number, in a folder of that name."""
    random = np.random.default_rng(0)
    for k, name in enumerate(classes):
        Path(folder, str(name)).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20, 16, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(Path(folder, str(name), f"{k}.png"))
    return folder


def test_the_data_of_the_run_is_read_as_it_was(monkeypatch, capsys):
    """From another folder, with all options of reading; each may be another."""
    Path(pictures("images", [4, 4, 5, 5, 5]), "4", "broken.png").write_bytes(b"\x89PNG\r\n")
    argv = ["train", "dcgan", "--data", "images", *TINY, "--channels", "1", "--fit", "pad", "--skip-bad", "--transpose"]
    assert main(argv) == 0
    run = Path("runs/00000-dcgan-images").absolute()
    asked = []
    real = evaluate.open_dataset
    monkeypatch.setattr(
        evaluate, "open_dataset", lambda *args, **options: asked.append(options) or real(*args, **options)
    )
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    for given in ([], ["--fit", "stretch", "--no-transpose"]):
        assert main(["evaluate", str(run), "--samples", "9", *given]) == 0
    first, second = asked
    assert first["channels"] == 1 and first["fit"] == "pad" and first["skip_bad"] and first["transpose"]
    assert second == first | {"fit": "stretch", "transpose": False}
    assert [row["data"] for row in rows(run)] == [str(run.parent.parent / "images")] * 2


def test_data_that_is_no_longer_there(fails):
    assert main(["train", "dcgan", "--data", pictures("images", [4, 4, 5, 5]), *TINY]) == 0
    place = Path("images").absolute()
    Path("images").rename("moved")
    message = fails("evaluate", "runs/00000-dcgan-images", "--samples", "8")
    assert message.startswith("ganfast: images is not there, and runs/00000-dcgan-images had its data from")
    assert f"{place}: say where it is (--data)." in message
    assert main(["evaluate", "runs/00000-dcgan-images", "--samples", "8", "--data", "moved"]) == 0


def test_a_folder_of_a_built_in_name_is_another_set(run, monkeypatch, capsys):
    Path("digits").mkdir()
    assert main(["evaluate", str(run), "--samples", "8"]) == 0


def test_a_generator_without_its_run_needs_data(fails):
    message = fails("evaluate", small.dcgan(), "--samples", "8")
    assert "generator.safetensors is a generator without its run" in message and "--data" in message


# -- small data sets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [[4] * k + [20231107] * n for k, n in
    ((1, 1), (2, 1), (1, 4), (5, 5), (1, 9))] + [[1, 2, 3], [0, 5, 5, 9, 9, 9, 9]], ids=str)  # fmt: skip
def test_scores_of_two_to_ten_pictures(classes, capsys):
    argv = ["evaluate", small.dcgan(), "--samples", "8", "--data", pictures("images", classes, "L")]
    assert main(argv) == 0
    assert "share, real" in capsys.readouterr().out
    np.savez("a.npz", images=np.zeros((len(classes), 16, 16), np.uint8), labels=np.array(classes))
    assert main([*argv[:-1], "a.npz"]) == 0


@pytest.mark.parametrize("count", [1, 2, 10])
def test_one_class_is_one_sentence(count, fails):
    np.savez("a.npz", images=np.zeros((count, 16, 16), np.uint8), labels=np.full(count, 4))
    message = fails("evaluate", small.dcgan(), "--samples", "8", "--data", "a.npz")
    assert f"a has {count} image{'s' * (count > 1)} of one class, and a classifier needs two" in message


def test_labels_that_cannot_be_used_are_one_sentence(fails):
    np.savez("a.npz", images=np.zeros((4, 16, 16), np.uint8), labels=np.arange(3))
    message = fails("evaluate", small.dcgan(), "--samples", "8", "--data", "a.npz")
    assert "a has no labelled images (3 labels for 4 samples)" in message
    np.savez("b.npz", images=np.zeros((4, 16, 16), np.uint8), labels=np.array([4, 4, 4, 9]))
    message = fails("evaluate", small.cgan(), "--samples", "8", "--data", "b.npz")  # of four classes
    assert "trained on 4 classes, and b has 2" in message


def test_what_takes_long_has_a_bar(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GANFAST_CACHE", str(tmp_path / "cache"))  # nothing is trained yet
    shown = []

    def bar(*args, desc="", delay=0, disable=False, **options):
        shown.append(desc or args[1])
        return tqdm(*args, desc=desc, disable=True, **options) if not args[1:] else tqdm(args[0], disable=True)

    for module in ("training.scoring", "metrics.lenet", "metrics.features"):
        monkeypatch.setattr(f"ganfast.{module}.tqdm", bar)
    assert main(["evaluate", small.dcgan(), "--samples", "300", "--data", "digits"]) == 0
    assert shown == ["samples", "samples", "classifier", "lenet", "lenet"]  # the data's features, and the samples''


# -- scores over features ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    """The file of a feature network that has learnt nothing."""
    file = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file(SqueezeNet().state_dict(), file)
    return str(file)


def unlabelled(count: int) -> str:
    random = np.random.default_rng(0)
    np.savez("plain.npz", images=random.integers(0, 256, (count, 16, 16), np.uint8))
    return "plain.npz"


def test_features_of_the_classifier_are_compared_and_kept(run, capsys):
    assert main(["evaluate", str(run), "--samples", "40"]) == 0
    out = capsys.readouterr().out
    assert out.index("share, real") < out.index("features of lenet: 40 generated and 40 real images")
    assert f"kept in {run}/metric-lenet.jsonl" in out
    (row,) = [json.loads(line) for line in (run / "metric-lenet.jsonl").read_text().splitlines()]
    assert row["metric"] == row["network"] == "lenet" and row["step"] == 2 and row["samples"] == row["real"] == 40
    assert row["values"]["frechet-lenet"] > row["floors"]["frechet-lenet"] > 0
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "frechet-lenet" in page and "Real images" in page


def test_images_without_labels_need_a_network(squeezenet, fails, capsys):
    message = fails("evaluate", small.dcgan(), "--samples", "8", "--data", unlabelled(20))
    assert "plain has no labelled images: give labelled images" in message and "(--features)" in message
    assert main(["evaluate", small.dcgan(), "--samples", "8", "--data", "plain.npz", "--features", squeezenet]) == 0
    out = capsys.readouterr().out
    assert "features of squeezenet: 8 generated and 8 real images" in out and "kid-squeezenet" in out
    assert "class " not in out and "kept in" not in out


def test_one_class_is_enough_for_a_network(squeezenet, capsys):
    np.savez("a.npz", images=np.zeros((8, 16, 16), np.uint8), labels=np.full(8, 4))
    assert main(["evaluate", small.dcgan(), "--samples", "4", "--data", "a.npz", "--features", squeezenet]) == 0
    assert "frechet-squeezenet" in capsys.readouterr().out


def test_features_that_cannot_be_used(squeezenet, fails):
    message = fails("evaluate", small.dcgan(), "--data", "digits", "--features", "nowhere.pth")
    assert "--features nowhere.pth is not there" in message
    message = fails("evaluate", small.gan(), "--data", "gaussians:ring8", "--features", squeezenet)
    assert "gaussians:ring8 is points, and feature networks see images" in message


def test_neighbours_are_drawn_in_the_run(run, fails, capsys):
    assert main(["evaluate", str(run), "--samples", "40", "--neighbours"]) == 0
    assert f"nearest by pixels and by features: {run}/neighbours.png" in capsys.readouterr().out
    with Image.open(run / "neighbours.png") as picture:
        assert picture.size == (2 * (16 * 18 - 2), 2 * (3 * 18 - 2))
    assert "--neighbours: " in fails("evaluate", small.dcgan(), "--data", "digits", "--neighbours")


def test_modes_of_stacked_digits(monkeypatch, fails, capsys):
    learn = lenet.learn
    monkeypatch.setattr(lenet, "learn", lambda net, data, rows, steps, progress: learn(net, data, rows, 20, progress))
    monkeypatch.setattr("ganfast.data.derived.stacked", lambda base: stacked(base, rows=100))
    rgb = Spec("images", (3, 16, 16))
    small.saved(DCGAN(width=2, latent_dim=4), "run/generator.safetensors", x=rgb)
    Path("run/options.json").write_text("{}")
    assert main(["evaluate", "run", "--data", "stacked:digits", "--samples", "50"]) == 0
    out = capsys.readouterr().out
    assert "modes recovered " in out and "of 1000 (real images: " in out and "metric-stacked.jsonl" in out
    (row,) = [json.loads(line) for line in Path("run/metric-stacked.jsonl").read_text().splitlines()]
    assert row["samples"] == 50 and 1 <= row["modes"] <= 50 and row["kl"] > 0
    assert "needs the weights" in fails("evaluate", "run", "--data", "stacked:digits", "--neighbours")


def test_translations_beside_the_true_ones(capsys):
    """Of files of one name, which an unpaired recipe has never seen as pairs."""
    random = np.random.default_rng(0)
    for folder in ("plain", "inverted"):
        Path(folder).mkdir()
    for k in range(5):
        pixels = random.integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(f"plain/{k}.png")
        Image.fromarray(255 - pixels).save(f"inverted/{k}.png")
    argv = ["train", "cyclegan", "--data", "plain", "--data-b", "inverted", "--size", "16", "--width", "2"]
    assert main([*argv, "--blocks", "1", "--layers", "1", "--batch", "2", "--steps", "2"]) == 0
    run = Path("runs/00000-cyclegan-plain-inverted")
    assert main(["evaluate", str(run), "--paired"]) == 0
    assert "5 images beside the true ones" in capsys.readouterr().out
    picture = np.asarray(Image.open(run / "answers.png"))[::2, ::2].astype(int)  # cells of 16 pixels, 2 between them
    given, _, true = (picture[:16, at : at + 16] for at in (0, 18, 36))
    assert picture.shape[:2] == (2 * 18 - 2, 12 * 18 - 2) and abs(given + true - 255).max() <= 1
    (row,) = [json.loads(line) for line in (run / "metric-fidelity.jsonl").read_text().splitlines()]
    pixels = np.stack([np.asarray(Image.open(f"plain/{k}.png")) for k in range(5)]) / 255
    assert row["trivial"]["input"]["l1"] == pytest.approx(np.abs(2 * pixels - 1).mean(), rel=1e-4)
    assert row["trivial"]["mean"]["l1"] == pytest.approx(np.abs(pixels - pixels.mean(0)).mean(), rel=1e-4)
    assert row["count"] == 5 and 0 < row["values"]["l1"] < 1 and row["step"] == 2


def test_another_size_is_not_read_at_the_load_size_of_the_run(capsys):
    """Of pictures that are larger than those of training the centres are shown."""
    random = np.random.default_rng(0)
    Path("photos").mkdir()
    for k in range(3):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(f"photos/{k}.png")
    argv = ["train", "srgan", "--data", "photos", "--size", "16", "--load-size", "24", "--scale", "2", "--width", "2"]
    argv += ["--blocks", "1", "--pretraining", "1", "--residual", "--batch", "2", "--steps", "1", "--lr", "1e-6"]
    assert main(argv) == 0
    run = Path("runs/00000-srgan-photos")
    assert main(["evaluate", str(run), "--size", "32"]) == 0
    (row,) = [json.loads(line) for line in (run / "metric-fidelity.jsonl").read_text().splitlines()]
    pixels = np.stack([np.asarray(Image.open(f"photos/{k}.png")) for k in range(3)]) / 255
    assert row["trivial"]["mean"]["l1"] == pytest.approx(np.abs(pixels - pixels.mean(0)).mean(), rel=1e-4)
    assert Image.open(run / "answers.png").size == (320, 32)  # at 2x


def test_translations_by_attributes_are_judged_by_field_and_beside_their_partners(monkeypatch, capsys):
    random, faces = np.random.default_rng(0), []
    Path("faces").mkdir()
    for k in range(24):
        faces.append({"file": f"{k}.png", "identity": k // 4, "hair": ["black", "red"][k % 2], "beard": k % 3 == 0})
        Image.fromarray(random.integers(0, 256, (16, 16), np.uint8)).save(f"faces/{k}.png")
    Path("faces/dataset.json").write_text(json.dumps({"faces": faces}))
    monkeypatch.setattr(attributes, "fitted", lambda data, steps, progress: lenet.fitted(data, 2))
    argv = ["evaluate", small.of_attributes(), "--data", "faces"]
    assert main([*argv, "--attributes", "hair,beard"]) == 0
    said = capsys.readouterr().out
    assert "24 translations" in said and "hair" in said and "beard" in said and "images beside the true ones" in said
    assert main([*argv, "--attributes", "beard,hair"]) == 2
    assert "faces has other attributes than the recipe was trained on" in capsys.readouterr().err
    assert main([*argv, "--attributes", "hair,beard", "--neighbours"]) == 2
